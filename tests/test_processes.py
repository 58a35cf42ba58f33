"""Several processes, as torchrun and accelerate start them: the same training as one process, one voice, a clear end."""
import json, os, re, signal, socket, subprocess, sys, time
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
SMALL = ["--model", "./tiny", "--n-train", "64", "--n-validation", "32", "--n-test", "32", "--max-length", "32", "--epochs", "2",
         "--set", "hidden_dropout=0", "--set", "precision=fp32", "--set", "lr_lora=0.02", "--set", "lr_full=0.001"]
TWO = [BIN/"torchrun", "--standalone", "--nproc-per-node", "2", "-m", "sentiment_nbdev"]


def done(process):
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    return out, err


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def record(folder): return json.loads((folder/"record.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("method", ["full", "lora"])
def test_two_processes_train_what_one_trains(method, start, tmp_path):
    done(start(BIN/"python", "-m", "sentiment_nbdev", "train", method, *SMALL, "--out", "one"))
    out, err = done(start(*TWO, "train", method, *SMALL, "--out", "two"))
    assert len(out.splitlines()) == 1 and "Traceback" not in err                 # one voice
    one, two = record(tmp_path/"one"), record(tmp_path/"two")
    for split in ("validation", "test"): print(method, split, *(f"{name} {one[split][name]:.5f} | {two[split][name]:.5f}" for name in ("accuracy", "nll")))
    for name in ("loss", "grad_norm"): assert one["history"][name] == pytest.approx(two["history"][name], abs=1e-3)
    for split in ("validation", "test"):
        for name in ("accuracy", "nll"): assert one[split][name] == pytest.approx(two[split][name], abs=1e-3)
    assert not (tmp_path/"two-checkpoints").exists()


@pytest.mark.slow
def test_a_dead_worker_ends_the_job_and_it_resumes(start, tmp_path):
    job = start(*TWO, "train", "full", *SMALL, "--epochs", "40", "--out", "long")
    end = time.time() + 120
    while not list((tmp_path/"long-checkpoints").glob("*/checkpoint-*/sha256.json")) and time.time() < end: time.sleep(0.05)
    workers = [int(pid) for pid in subprocess.run(["pgrep", "-P", str(job.pid)], capture_output=True, text=True).stdout.split()]
    os.kill(workers[-1], signal.SIGKILL)
    out, err = job.communicate(timeout=120)
    assert job.returncode != 0 and out == "" and not (tmp_path/"long").exists()
    assert "start all of them again with --resume" in err or "Signal 9 (SIGKILL)" in err
    out, _ = done(start(*TWO, "train", "full", *SMALL, "--epochs", "40", "--out", "long", "--resume"))
    assert out.startswith("full: test accuracy") and len(record(tmp_path/"long")["history"]["loss"]) == 40 * 8


@pytest.mark.slow
def test_what_processes_cannot_share_is_refused(start):
    job = start(*TWO, "compare", *SMALL)
    assert "compare runs in one process" in job.communicate(timeout=120)[1]
    job = start(BIN/"accelerate", "launch", "--cpu", "--num_processes", "2", "-m", "sentiment_nbdev", "train", "full", *SMALL)
    assert "starts one process, whatever --num_processes says" in job.communicate(timeout=120)[1]


@pytest.mark.slow
def test_accelerate_with_real_processes(start, tmp_path):
    out, _ = done(start(BIN/"accelerate", "launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", free_port(), "-m", "sentiment_nbdev", "train", "lora",
                        *SMALL, "--set", "device=cpu", "--out", "two"))
    assert re.fullmatch(r"lora: test accuracy .*\n", out) and record(tmp_path/"two")["test"]["n"] == 32


@pytest.mark.slow
def test_a_batch_that_cannot_be_shared(start):
    job = start(*TWO, "train", "full", *SMALL, "--set", "batch_size=7")
    assert "cannot be shared by 2 devices" in job.communicate(timeout=120)[1]
