"""Write README.md from nbs/index.ipynb: its prose, its shown code, and the output of cells whose code is hidden. `--check` only tells whether they differ."""
import json, re, sys
from pathlib import Path

root = Path(__file__).resolve().parent.parent


def cell_text(cell: dict) -> str:
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown": return source
    if source.startswith("#| echo: false"): return "\n\n".join("".join(out.get("data", {}).get("text/markdown", "")) for out in cell["outputs"])
    return "" if source.startswith("#| ") else f"```python\n{source}\n```"


def readme() -> str:
    cells = json.loads((root/"nbs/index.ipynb").read_text())["cells"]
    text = "\n\n".join(filter(None, map(cell_text, cells))) + "\n"
    text = text.replace("<!--given-->", "")      # a mark for the test of numbers in prose, of no use to a reader
    return re.sub(r"\]\((?!https?:)([\w-]+\.ipynb)\)", r"](nbs/\1)", text).replace("](../", "](")


if "--check" in sys.argv: sys.exit((root/"README.md").read_text() != readme() and "README.md is not what nbs/index.ipynb says: run `make readme`")
(root/"README.md").write_text(readme())
