"""Write README.md and CONTRIBUTING.md from nbs/index.ipynb and nbs/contributing.ipynb: the prose, its shown code, and the output of cells whose code is hidden. `--check` only tells whether they differ."""
import json, re, sys
from pathlib import Path

root = Path(__file__).resolve().parent.parent


def cell_text(cell: dict) -> str:
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown": return source
    if source.startswith("#| echo: false"): return "\n\n".join("".join(out.get("data", {}).get("text/markdown", "")) for out in cell["outputs"])
    return "" if source.startswith("#| ") else f"```python\n{source}\n```"


MADE = {"README.md": "index", "CONTRIBUTING.md": "contributing"}


def page(notebook: str) -> str:
    cells = json.loads((root/f"nbs/{notebook}.ipynb").read_text())["cells"]
    text = "\n\n".join(filter(None, map(cell_text, cells))) + "\n"
    text = re.sub(r"(?<!`)<!--given-->", "", text)     # a mark for the test of numbers in prose, of no use to a reader
    return re.sub(r"\]\((?!https?:)([\w/-]+\.ipynb(?:#[\w-]+)?)\)", r"](nbs/\1)", text).replace("](../", "](").replace("](images/", "](nbs/images/")


for name, notebook in MADE.items():
    if "--check" not in sys.argv: (root/name).write_text(page(notebook))
    elif not (root/name).is_file() or (root/name).read_text() != page(notebook): sys.exit(f"{name} is not what nbs/{notebook}.ipynb says: run `make readme`")
