"""Run every lesson and store its outputs: clean ones, the same on every run."""
import subprocess, sys
from pathlib import Path

tools = Path(sys.executable).parent
root = Path(__file__).resolve().parent.parent
run = subprocess.run([sys.executable, root/"tools/test_notebooks.py", "--save", *sys.argv[1:]], cwd=root)
sys.exit(run.returncode or subprocess.run([tools/"nbdev-clean"], cwd=root).returncode)
