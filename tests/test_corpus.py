"The bundled corpus: the same rows in every process, and cheap to import"
import json, os, subprocess, sys

CODE = """
import hashlib, json, random, sys
random.seed({seed})
from sentiment_nbdev.corpus import corpus_rows
rows = [corpus_rows(split) for split in ("train", "validation", "test")]
heavy = sorted({{"torch", "transformers", "datasets", "peft", "sklearn", "numpy"}} & set(sys.modules))
print(json.dumps([hashlib.sha256(json.dumps(rows).encode()).hexdigest(), heavy]))
"""

def fingerprint(seed: int):
    "The rows' hash and the heavy modules of a fresh process with its own hash seed"
    environment = dict(os.environ, PYTHONHASHSEED=str(seed))
    run = subprocess.run([sys.executable, "-c", CODE.format(seed=seed)], env=environment, capture_output=True, text=True, check=True)
    return json.loads(run.stdout)

def test_rows_are_the_same_in_every_process():
    assert fingerprint(1) == fingerprint(2)

def test_import_is_light():
    assert fingerprint(1)[1] == []
