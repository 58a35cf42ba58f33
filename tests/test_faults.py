"""What a run survives: kill -9 at random moments, polite signals, a full disk, a folder that is taken, a base model that has gone."""
import hashlib, json, os, random, resource, shutil, signal, sys, time
from dataclasses import replace
from pathlib import Path

import pytest
from sentiment_nbdev.files import InputError, write_atomically

SENTIMENT = Path(sys.executable).with_name("sentiment")
ROWS = ["--model", "./tiny", "--n-train", "48", "--n-validation", "16", "--n-test", "16", "--max-length", "32"]
LONG = [*ROWS, "--epochs", "12", "--set", "lr_lora=0.02"]


def finish(process):
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def wait_for(condition, process, seconds=280):
    end = time.time() + seconds
    while not condition() and process.poll() is None and time.time() < end: time.sleep(0.02)
    return process.poll() is None


def sealed(folder):
    "The sealed checkpoints; a folder that vanishes while we look is none"
    try: return [*Path(folder).rglob("sha256.json")]
    except FileNotFoundError: return []


def weights(folder): return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(Path(folder).glob("*.safetensors"))}


def told(folder):
    "A record without what it took and where it ran"
    return {name: value for name, value in json.loads((folder/"record.json").read_text()).items() if name not in ("cost", "environment")}


def assert_nothing_half(folder):
    "Every file that has its real name is whole"
    for path in folder.rglob("*.json"):
        if not any(part.startswith((".writing-", "checkpoint-")) for part in path.parts): json.loads(path.read_text())


@pytest.mark.parametrize("method, kills", [("lora", 2), pytest.param("full", 1, marks=pytest.mark.slow), pytest.param("lora", 9, marks=pytest.mark.slow), pytest.param("full", 9, marks=pytest.mark.slow)])
def test_killed_training_ends_with_the_same_bits(method, kills, start, tmp_path):
    "kill -9 at random moments after the first sealed checkpoint; weights, history and metrics as if nothing had happened"
    assert finish(start(SENTIMENT, "train", method, *LONG, "--out", "whole"))[0] == 0
    moments, landed = random.Random(f"{method} {kills}"), 0
    for _ in range(kills):
        run = start(SENTIMENT, "train", method, *LONG, "--out", "killed", *(["--resume"] if landed else []))
        if wait_for(lambda: sealed(tmp_path/"killed-checkpoints"), run): time.sleep(moments.uniform(0, 6 if landed else 1))
        if run.poll() is None: landed += 1
        run.kill()
        run.communicate()
        assert_nothing_half(tmp_path)
    assert landed
    code, out, err = finish(start(SENTIMENT, "train", method, *LONG, "--out", "killed", *(["--resume"] if (tmp_path/"killed-checkpoints").exists() else [])))
    assert code == 0, err
    assert weights(tmp_path/"killed") == weights(tmp_path/"whole")
    assert told(tmp_path/"killed") == told(tmp_path/"whole")
    assert not (tmp_path/"killed-checkpoints").exists() and not list(tmp_path.glob(".writing-*"))


def test_a_living_writer_keeps_its_temporary_folder(start, tmp_path):
    "Its lock tells, not its number: in another container that number belongs to somebody else"
    writing = ("import sys, time; from sentiment_nbdev.files import write_atomically\nwith write_atomically('theirs.txt') as path:\n"
               "    path.write_text('half', encoding='utf-8'); print('writing', flush=True); time.sleep(100)")
    other = start(sys.executable, "-c", writing)
    assert other.stdout.readline() == "writing\n"
    work, = tmp_path.glob(".writing-*")
    with write_atomically(tmp_path/"ours.txt") as path: path.write_text("whole", encoding="utf-8")
    assert (work/"new/theirs.txt").is_file()
    other.kill()
    other.communicate()
    with write_atomically(tmp_path/"ours.txt") as path: path.write_text("again", encoding="utf-8")
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["ours.txt", "tiny"]


def test_another_encoder_at_the_same_path_is_another_run(tiny_encoder, tmp_path):
    from sentiment_nbdev.checkpoints import open_run, run_plan
    from sentiment_nbdev.runs import prepare_rows
    from sentiment_nbdev.settings import Settings
    here = shutil.copytree(tiny_encoder, tmp_path/"tiny")
    chosen = Settings(model=str(here), revision="", n_train=16, n_validation=8, n_test=8, max_length=16)
    tokens = prepare_rows(chosen).tokens
    open_run(tmp_path/"mine-checkpoints", run_plan("full", tokens, chosen), resume=False)
    open_run(tmp_path/"mine-checkpoints", run_plan("full", tokens, replace(chosen, report_to="tensorboard")), resume=True)      # no other run
    with (here/"model.safetensors").open("r+b") as file:
        file.seek(-3, os.SEEK_END)
        file.write(b"???")
    with pytest.raises(InputError, match="a run with other encoder"): open_run(tmp_path/"mine-checkpoints", run_plan("full", tokens, chosen), resume=True)


@pytest.mark.parametrize("kills", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_killed_comparison_leaves_whole_files(kills, start, tmp_path):
    moments = random.Random(kills)
    for _ in range(kills):
        run = start(SENTIMENT, "compare", *ROWS, "--epochs", "1", "--out", "out")
        wait_for((tmp_path/"out/records").is_dir, run)
        time.sleep(moments.uniform(0, 3))
        run.kill()
        run.communicate()
        assert_nothing_half(tmp_path)
    code, out, err = finish(start(SENTIMENT, "compare", *ROWS, "--epochs", "1", "--out", "out"))
    assert code == 0 and "| full" in out, err
    assert not list(tmp_path.rglob(".writing-*"))


@pytest.mark.slow
@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_polite_signal_leaves_a_checkpoint(number, start, tmp_path):
    run = start(SENTIMENT, "train", "lora", *LONG, "--epochs", "200", "--out", "mine")
    assert wait_for(lambda: sealed(tmp_path/"mine-checkpoints"), run)
    run.send_signal(number)
    code, out, err = finish(run)
    assert (code, out) == (130, "") and len(err.splitlines()) == 1 and "add --resume to go on" in err
    steps = max(int(path.parent.name.split("-")[1]) for path in sealed(tmp_path/"mine-checkpoints"))
    code, _, err = finish(start(SENTIMENT, "train", "lora", *LONG, "--epochs", "200", "--out", "mine"))
    assert code == 2 and "holds an unfinished run: add --resume" in err
    code, _, err = finish(start(SENTIMENT, "train", "lora", *LONG, "--epochs", "100", "--out", "mine", "--resume"))
    assert code == 2 and "a run with other epochs" in err
    assert steps >= 6 and max(int(path.parent.name.split("-")[1]) for path in sealed(tmp_path/"mine-checkpoints")) == steps


@pytest.mark.slow
def test_a_damaged_checkpoint_is_named_and_passed_over(start, tmp_path):
    whole = start(SENTIMENT, "train", "lora", *LONG, "--out", "whole")
    run = start(SENTIMENT, "train", "lora", *LONG, "--out", "mine")
    assert wait_for(lambda: len(sealed(tmp_path/"mine-checkpoints")) > 1, run)
    run.kill()
    run.communicate()
    newest = max(sealed(tmp_path/"mine-checkpoints"), key=lambda path: int(path.parent.name.split("-")[1])).parent
    with (newest/"adapter_model.safetensors").open("r+b") as file:
        file.seek(-3, os.SEEK_END)
        file.write(b"???")
    code, out, err = finish(start(SENTIMENT, "train", "lora", *LONG, "--out", "mine", "--resume"))
    assert code == 0 and newest.name in err and "adapter_model.safetensors is not what was written" in err
    assert finish(whole)[0] == 0 and weights(tmp_path/"mine") == weights(tmp_path/"whole")


@pytest.mark.slow
@pytest.mark.parametrize("limit", [10_000, 100_000, 4_500_000])
def test_a_full_disk(limit, start, tmp_path):
    "No file may grow beyond the limit: the error is one line and nothing half-written stays"
    here = {path for path in tmp_path.rglob("*")}
    code, out, err = finish(start(SENTIMENT, "train", "full", *ROWS, "--epochs", "1", "--out", "mine", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))))
    assert (code, out) == (2, "") and err.splitlines()[-1].startswith("error: ") and "Traceback" not in err, err
    assert {path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".lock"} <= here


@pytest.mark.slow
def test_a_place_where_nothing_can_be_written(start):
    code, out, err = finish(start(SENTIMENT, "train", "probe", *ROWS, "--out", "/proc/mine"))
    assert (code, out, len(err.splitlines())) == (2, "", 1) and "/proc" in err


@pytest.mark.slow
def test_two_runs_into_one_folder(start, tmp_path):
    first = start(SENTIMENT, "train", "lora", *LONG, "--epochs", "400", "--out", "mine")
    assert wait_for((tmp_path/"mine-checkpoints/run.json").is_file, first)
    code, out, err = finish(start(SENTIMENT, "train", "lora", *LONG, "--epochs", "400", "--out", "mine", "--resume"))
    assert (code, out) == (2, "") and "another process is writing mine" in err
    first.kill()
    first.communicate()


@pytest.mark.slow
def test_too_little_memory(start, tmp_path):
    "A batch that no machine holds: the message names the settings"
    long = "a film " * 250
    (tmp_path/"long.csv").write_text("text,label\n" + "".join(f"{long} {i},{'POS' if i % 2 else 'NEG'}\n" for i in range(600)))
    run = start(SENTIMENT, "train", "full", "--model", "./tiny", "--data", "long.csv", "--n-train", "512", "--n-validation", "40", "--n-test", "40", "--max-length", "512",
                "--epochs", "1", "--plain", "--set", "batch_size=512", "--out", "mine",
                preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (5 << 30, 5 << 30)))
    code, out, err = finish(run)
    assert (code, out) == (2, "") and "lower batch_size" in err and "Traceback" not in err, err


@pytest.mark.slow
def test_the_base_model_has_gone_or_changed(start, tmp_path):
    assert finish(start(SENTIMENT, "train", "lora", *ROWS, "--epochs", "1", "--out", "mine"))[0] == 0
    code, out, err = finish(start(SENTIMENT, "predict", "mine", "a joy"))
    assert code == 2 and "name its folder with --base" in err
    shutil.move(tmp_path/"tiny", tmp_path/"moved")
    assert finish(start(SENTIMENT, "predict", "mine", "a joy", "--base", "./moved"))[0] == 0
    code, out, err = finish(start(SENTIMENT, "predict", "mine", "a joy", "--base", "./tiny"))
    assert code == 2 and "./tiny" in err and len(err.splitlines()) == 1
