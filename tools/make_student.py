"""Copy the lessons to build/student with empty cells in the place of the folded solutions."""
import json, shutil
from pathlib import Path

root = Path(__file__).resolve().parent.parent
out = root/"build/student"


def without_solution(cell: dict) -> dict:
    solved = cell["cell_type"] == "code" and "".join(cell["source"]).startswith("#| code-fold: true")
    return cell | dict(source=["# your answer\n"], outputs=[]) if solved else cell


shutil.rmtree(out, ignore_errors=True)               # copies of lessons that are gone
out.mkdir(parents=True)
for path in sorted((root/"nbs").rglob("[!.]*.ipynb")):
    copy = out/path.relative_to(root/"nbs")
    copy.parent.mkdir(exist_ok=True)
    notebook = json.loads(path.read_text())
    notebook["cells"] = [without_solution(cell) for cell in notebook["cells"]]
    copy.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")
print(f"Wrote {len(list(out.rglob('*.ipynb')))} notebooks to build/student")
