"""Studies under real processes: killed, resumed, shared."""
import json, os, signal, subprocess, sys, time
from pathlib import Path

import pytest
from sentiment_nbdev.reports import write_report
from sentiment_nbdev.study import open_runs, read_study

PLAN = ["study", "mine", "--vary", "lora_r=1,2", "--methods", "lora", "--points", "2", "--n-train", "32", "--n-validation", "16",
        "--n-test", "16", "--max-length", "16", "--epochs", "1", "--threads", "1"]


SENTIMENT = Path(sys.executable).with_name("sentiment")


def worker(out, *more):
    command = [SENTIMENT, *PLAN, "--out", str(out), *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"TOKENIZERS_PARALLELISM": "false"})


def records(out): return {path.name: path for path in (out/"records").glob("*.json")}


def wait_for(out, n, process):
    end = time.time() + 120
    while len(records(out)) < n and time.time() < end and process.poll() is None: time.sleep(0.05)
    assert len(records(out)) >= n, process.communicate()


def found(path):
    "A record without what it took and where it ran"
    return {key: value for key, value in json.loads(path.read_text()).items() if key not in ("cost", "environment")}


def finished(process):
    out, error = process.communicate(timeout=240)
    assert process.returncode == 0, error
    return [line.split(":")[0] for line in error.splitlines() if ": validation" in line]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    "The records of one undisturbed worker"
    out = tmp_path_factory.mktemp("alone")/"mine"
    assert len(finished(worker(out))) == 6
    return out


def test_a_method_that_the_encoder_cannot_have_stops_before_the_first_run(command, tiny_encoder, tmp_path):
    code, out, err = command("study", "verdict", "--model", tiny_encoder, "--n-train", "16", "--n-validation", "8", "--n-test", "8", "--out", "mine")
    assert code == 2 and len(err.splitlines()) == 1 and "leave out last2" in err and not (tmp_path/"mine").exists()


def test_a_killed_study_goes_on_without_repeating_a_run(alone, tmp_path):
    first = worker(tmp_path/"mine")
    wait_for(tmp_path/"mine", 2, first)
    first.send_signal(signal.SIGKILL)
    first.wait()
    before = {name: path.stat().st_mtime_ns for name, path in records(tmp_path/"mine").items()}
    told = finished(worker(tmp_path/"mine"))
    assert len(told) == 6 - len(before) and not {f"{name}.json" for name in told} & before.keys()
    assert all(records(tmp_path/"mine")[name].stat().st_mtime_ns == when for name, when in before.items())
    assert not list((tmp_path/"mine").rglob(".writing-*/*.json"))
    assert {name: found(path) for name, path in records(tmp_path/"mine").items()} == {name: found(path) for name, path in records(alone).items()}


def test_two_workers_share_a_study_and_one_may_die(alone, tmp_path):
    workers = [worker(tmp_path/"mine") for _ in range(3)]
    wait_for(tmp_path/"mine", 1, workers[0])
    workers[0].send_signal(signal.SIGKILL)
    _, error = workers[0].communicate()
    told = [line.split(":")[0] for line in error.splitlines() if ": validation" in line] + sum(map(finished, workers[1:]), [])
    assert len(told) == len(set(told)), "a run was done twice"
    assert {name: found(path) for name, path in records(tmp_path/"mine").items()} == {name: found(path) for name, path in records(alone).items()}


def test_a_listed_command_does_its_run(tmp_path):
    listed = subprocess.run([SENTIMENT, *PLAN, "--out", str(tmp_path/"mine"), "--list"], capture_output=True, text=True, check=True)
    commands = listed.stdout.splitlines()
    assert len(commands) == 4 and all(line.startswith("sentiment study mine --vary lora_r=1,2") for line in commands)
    number = commands[2].split()[-1]
    assert [name.rsplit("-", 1)[-1] for name in finished(worker(tmp_path/"mine", "--run", number))] == [number]
    assert len(open_runs(study := read_study(tmp_path/"mine"), tmp_path/"mine")) == 3 and study.name == "mine"


def test_a_report_needs_records_only(alone, tmp_path):
    "The same bytes from a copy of plan and records"
    copy = tmp_path/"mine"
    (copy/"records").mkdir(parents=True)
    (copy/"study.json").write_bytes((alone/"study.json").read_bytes())
    for path in records(alone).values(): (copy/"records"/path.name).write_bytes(path.read_bytes())
    write_report(copy)
    for name in ("report.md", "summary.json", "accuracy.png"): assert (copy/name).read_bytes() == (alone/name).read_bytes(), name


def test_another_plan_in_the_same_folder_is_refused(alone):
    run = subprocess.run([SENTIMENT, *PLAN, "--epochs", "2", "--out", str(alone)], capture_output=True, text=True)
    assert run.returncode == 2 and "holds another plan" in run.stderr and "Traceback" not in run.stderr
