// What the theme and Sphinx leave out for screen readers: names for the arrows of the menu, and roles in signatures of several lines.
document.addEventListener("DOMContentLoaded", () => {
  for (const arrow of document.querySelectorAll(".has-children > details > summary"))
    arrow.setAttribute("aria-label", "Show or hide the pages of this part");
  for (const list of document.querySelectorAll("dt.sig > dl")) {
    list.setAttribute("role", "list");
    for (const item of list.children) item.setAttribute("role", "listitem");
  }
});
