"""Run nbdev-test on every lesson and fail unless it really ran them: it exits 0 on "No files were eligible", too."""
import os, subprocess, sys
from pathlib import Path

# two lessons at a time with one thread each: threads of several lessons on the same cores only get in each other's way
environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
command = [str(Path(sys.executable).with_name("nbdev-test")), "--n-workers", "2", "--timing", *sys.argv[1:]]
run = subprocess.run(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
print(run.stdout)
sys.exit(run.returncode or "Success." not in run.stdout)
