"""Write into every notebook that runs its way to Colab: the badge below the title and the cell that installs the package. `--check` only tells what differs.

Where the package comes from is set in one place, `[tool.colab]` in pyproject.toml: a branch or a tag of the repository.
"""
import json, re, sys, tomllib
from pathlib import Path

root = Path(__file__).resolve().parent.parent
project = tomllib.loads((root/"pyproject.toml").read_text())
repository, ref = project["project"]["urls"]["Repository"], project["tool"]["colab"]["ref"]
MARK = "#| hide\ntry: import sentiment_nbdev\n"                # how the cell begins; a notebook without it does not run on Colab
INSTALL = MARK + f'''except ImportError:                                      # on Colab; its own torch stays as it is
    import subprocess, sys
    from importlib.metadata import distributions, version
    address = "sentiment-nbdev[notebooks] @ git+{repository}@{ref}"
    held = {{f"torch=={{found.version}}" for found in distributions(name="torch")}}
    done = subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", *held, address],
                          capture_output=True, text=True)
    if done.returncode:
        why = [line for line in done.stderr.splitlines() if "ERROR" in line][-1:]
        raise SystemExit(f"The lesson stops here: pip cannot install {{address}} {{why}}. Check network and address, "
                         "then run this cell again.") from None
    old = [name for name in ("numpy", "pandas", "psutil", "pyarrow")
           if name in sys.modules and sys.modules[name].__version__ != version(name)]
    if old: raise SystemExit(f"Installed, but {{', '.join(old)}} was loaded before in another release: choose Runtime, "
                             "Restart session, and run the notebook from its top.") from None'''
PICTURE = "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"


def badge(path: Path) -> str:
    where = repository.removeprefix("https://github.com/")
    return f"{PICTURE}(https://colab.research.google.com/github/{where}/blob/{ref}/{path.relative_to(root).as_posix()})"


def with_badge(opening: str, path: Path) -> str:
    "The first cell of a notebook, with the badge below title and description"
    bare = re.sub(re.escape(PICTURE) + r"\S*\n*", "", opening)
    head = re.match(r"\s*# .*\n+(> .*(\n|\Z))*", bare)[0]
    return "\n\n".join(part for part in (head.strip(), badge(path), bare[len(head):].strip("\n")) if part)


def changed(path: Path) -> str:
    "The notebook as it should be; in one that does not install the package only addresses change"
    text = re.sub(r"(colab\.research\.google\.com/github/[^/]+/[^/]+/blob)/[^/]+", rf"\1/{ref}", path.read_text())
    notebook = json.loads(text)
    cells = notebook["cells"]
    installing = [cell for cell in cells if "".join(cell["source"]).startswith(MARK)]
    if not installing: return text
    for cell, source in ((cells[0], with_badge("".join(cells[0]["source"]), path)), (installing[0], INSTALL)):
        cell["source"] = source.splitlines(keepends=True)
    return json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


for path in sorted((root/"nbs").rglob("[!.]*.ipynb")):
    if "--check" not in sys.argv: path.write_text(changed(path))
    elif path.read_text() != changed(path): sys.exit(f"{path.name} goes to Colab in another way than pyproject.toml says: run `python tools/colab.py`")
