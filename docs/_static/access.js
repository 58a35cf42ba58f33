// What the theme and Sphinx leave out for screen readers: names for the arrows of the menu, and roles in signatures of several lines.
document.addEventListener("DOMContentLoaded", () => {
  for (const arrow of document.querySelectorAll(".has-children > details > summary"))
    arrow.setAttribute("aria-label", "Show or hide the pages of this part");
  for (const list of document.querySelectorAll("dt.sig > dl")) {
    list.setAttribute("role", "list");
    for (const item of list.children) item.setAttribute("role", "listitem");
  }
});

// What scrolls sideways shows at its edge that it goes on.
document.addEventListener("DOMContentLoaded", () => {
  const look = ({ target: box }) => {
    box.classList.toggle("more-left", box.scrollLeft > 1);
    box.classList.toggle("more-right", box.scrollLeft + box.clientWidth < box.scrollWidth - 1);
  };
  const watch = new ResizeObserver(entries => entries.forEach(look));
  for (const box of document.querySelectorAll("article :is(div.cell_output, .pst-scrollable-table-container, .table-wrapper, div.math, pre)")) {
    box.addEventListener("scroll", look, { passive: true });
    watch.observe(box);
  }
});
