"""Runs and files on several processes and on clusters: the same results, nothing twice, nothing lost, whoever is killed."""
import json, os, re, shutil, signal, subprocess, sys, time
from concurrent.futures import BrokenExecutor, Future
from pathlib import Path

import psutil
import pytest
from sentiment_nbdev.files import InputError
from sentiment_nbdev.jobs import Lost, engine_of, find_shards, is_pattern, run_with

SENTIMENT = [sys.executable, "-m", "sentiment_nbdev"]
SHAPE = ["--n-train", "96", "--n-validation", "16", "--n-test", "16", "--max-length", "16", "--epochs", "8", "--threads", "1"]
PLAN = ["study", "mine", "--model", "./tiny", "--vary", "lora_r=1,2", "--methods", "lora", "--points", "2", "--seeds", "1,2", *SHAPE]
TIMES = dict(cost=("seconds", "seconds_per_epoch", "tokens_per_second", "peak_memory_bytes"), environment=("load", "date"))


def found(out):
    "All records of a study, without times, load and memory"
    records = {path.name: json.loads(path.read_text()) for path in (out/"records").glob("*.json")}
    for record in records.values():
        for part, names in TIMES.items():
            for name in names: record[part].pop(name)
    return records


def named(error):
    "The runs of which a command says that it did them"
    return [line.split(":")[0] for line in error.splitlines() if re.search(": (validation|diverged)", line)]


def wait_for(what, process, seconds=180):
    end = time.time() + seconds
    while not what():
        assert time.time() < end and process.poll() is None, process.communicate()
        time.sleep(0.02)


def done(process):
    out, error = process.communicate(timeout=400)
    assert process.returncode == 0, error
    return error


@pytest.fixture(scope="module")
def alone(tmp_path_factory, tiny_encoder):
    "The records of one process"
    place = tmp_path_factory.mktemp("alone")
    shutil.copytree(tiny_encoder, place/"tiny")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    run = subprocess.run([*SENTIMENT, *PLAN, "--out", "mine"], cwd=place, capture_output=True, text=True, env=environment)
    assert run.returncode == 0 and len(named(run.stderr)) == 12, run.stderr
    return found(place/"mine")


# --- one loop over futures


def future_of(result=None, error=None):
    future = Future()
    if error: future.set_exception(error)
    else: future.set_result(result)
    return future


def test_what_a_dead_pool_lost_is_tried_once_more_and_alone():
    tries, under_way = [], []
    def submit(do, function, item, version):
        tries.append(item)
        return future_of(error=BrokenExecutor("killed")) if item == "bad" or tries == ["a"] else future_of((function(item), None))
    results = dict(run_with(submit, 2, len, ["a", "bad", "lovely"]))
    assert results.pop("bad") == Lost("BrokenExecutor: killed") and results == dict(a=1, lovely=6)
    assert sorted(tries) == ["a", "a", "bad", "bad", "lovely"] and tries[2] == "lovely"          # again only after the others


def test_what_a_cluster_gave_up_is_not_tried_again():
    tries = []
    def submit(do, function, item, version):
        tries.append(item)
        return future_of(error=RuntimeError("the fourth worker died")) if item == "bad" else future_of((function(item), None))
    assert dict(run_with(submit, 9, len, ["bad", "fine"])) == {"bad": Lost("RuntimeError: the fourth worker died"), "fine": 4}
    assert sorted(tries) == ["bad", "fine"]


def test_an_error_of_a_job_ends_the_work_and_recalls_the_rest():
    waiting = Future()
    def submit(do, function, item, version):
        return future_of((None, InputError("no"))) if item == "bad" else waiting
    with pytest.raises(InputError, match="no"): list(run_with(submit, 2, len, ["bad", "fine"]))
    assert waiting.cancelled()


def test_a_worker_takes_the_threads_of_the_plan_and_refuses_another_number_format():
    import torch
    from sentiment_nbdev.settings import Settings
    from sentiment_nbdev.study import Conditions, Run, _check_machine
    cpu, before = Settings(device="cpu", precision="fp32"), torch.get_num_threads()
    try:
        _check_machine(Run("lora", cpu, conditions=Conditions(precision="fp32", threads=before + 1)))
        assert torch.get_num_threads() == before + 1
    finally: torch.set_num_threads(before)
    for conditions in (Conditions(precision="bf16", threads=1), Conditions(encoder="0" * 64, precision="fp32")):
        with pytest.raises(InputError, match="workers of one kind"): _check_machine(Run("lora", cpu, conditions=conditions))


# --- wrong inputs


@pytest.mark.parametrize("flags, word", [
    (["--jobs", "0"], "--jobs"), (["--jobs", "two"], "--jobs"), (["--engine", "spark"], "choose from loky, dask, ray"),
    (["--cluster", "tcp://127.0.0.1:1"], "--engine dask"), (["--engine", "ray", "--cluster", "127.0.0.1:1"], "no cluster of ray"),
    (["--engine", "dask", "--cluster", "nowhere"], "no cluster of dask"),
    (["--engine", "dask", "--cluster", "tcp://127.0.0.1:1"], "no cluster of dask"),
    (["--list", "--jobs", "2"], "leave out")])
def test_wrong_engines_are_one_line_and_leave_nothing(flags, word, command, tmp_path):
    engine = flags[1] if flags[0] == "--engine" else ""
    if "cluster" in word: pytest.importorskip({"dask": "distributed"}.get(engine, engine))
    start = time.time()
    code, out, err = command("study", "mine", "--vary", "n_train=32,64", "--methods", "bow", "--out", "mine", *flags)
    assert (code, out) == (2, "") and word in err and len(err.splitlines()) == 1, err
    assert not list(tmp_path.iterdir()) and time.time() - start < 60


@pytest.mark.parametrize("engine, module", [("dask", "distributed"), ("ray", "ray")])
def test_an_engine_that_is_not_installed_names_its_extra(engine, module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=rf"pip install sentiment-nbdev\[{engine}\]"):
        with engine_of(engine=engine): pass


@pytest.fixture
def reviews(tmp_path):
    "Three good files and their folder"
    (tmp_path/"in").mkdir()
    for name in "abc": (tmp_path/"in"/f"{name}.csv").write_text(f"id,text\n1,a joy {name}\n2,a bore {name}\n")
    return tmp_path/"in"


@pytest.mark.parametrize("flags, word", [
    (["--input", "in/*.txt", "--output", "out"], "no file matches"), (["--input", "in/*.csv"], "--output"),
    (["--input", "in/*.csv", "--output", "taken"], "no folder"), (["--input", "in/*.csv", "--output", "out.csv"], "no folder"),
    (["--input", "in/*.csv", "--output", "in"], "holds the files that are labelled"),
    (["--input", "in/*.csv", "--output", "in/../in/"], "holds the files that are labelled"),
    (["--input", "in/a.*", "--output", "out"], "would both become"),
    (["--input", "in/a.csv", "--output", "out.csv", "--jobs", "2"], "quoted pattern"),
    (["--input", "in/*.csv", "--output", "out", "--jobs", "0"], "--jobs"),
    (["--input", "in/*.csv", "--output", "out", "--engine", "spark"], "choose from")])
def test_wrong_shards_are_one_line_and_leave_nothing(flags, word, command, saved, reviews, tmp_path):
    (tmp_path/"taken").write_text("mine")
    (tmp_path/"in"/"a.csv.gz").write_bytes(b"")
    before = sorted(tmp_path.rglob("*"))
    code, out, err = command("predict", saved/"whole", *flags)
    assert (code, out) == (2, "") and word in err and len(err.splitlines()) == 1, err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_model_that_is_not_there_is_said_once(command, reviews, tmp_path):
    code, out, err = command("predict", tmp_path/"none", "--input", "in/*.csv", "--output", "out")
    assert (code, out, len(err.splitlines())) == (2, "", 1) and not (tmp_path/"out").exists()


# --- files, one by one


def test_a_file_with_brackets_in_its_name_is_that_file(command, saved, tmp_path):
    for name in ("reviews[1].csv", "reviews1.csv"): (tmp_path/name).write_text(f"text\n{name}\n")
    assert command("predict", saved/"whole", "--input", "reviews[1].csv", "--output", "one.csv")[0] == 0
    assert "reviews[1].csv" in (tmp_path/"one.csv").read_text()
    assert [shard.source.name for shard in find_shards("reviews[1]*", tmp_path/"out")] == ["reviews[1].csv"]
    (tmp_path/"what?.csv").write_text("text\nfine\n")
    assert not is_pattern("what?.csv") and is_pattern("what*.csv")
    (tmp_path/"reviews[1].csv").unlink()
    code, _, err = command("predict", saved/"whole", "--input", "reviews[1].csv")
    assert code == 2 and "no file reviews[1].csv" in err                                         # and not reviews1.csv


def test_shards_are_labelled_once_and_again_when_anything_changed(command, saved, reviews, tmp_path):
    def call(model="whole", *more): return command("predict", saved/model, "--input", "in/*.csv", "--output", "out", *more)
    code, out, err = call()
    assert (code, out) == (0, "") and err.splitlines()[-1] == "Labelled 6 rows; 3 of 3 files are in out"
    first = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in (tmp_path/"out").glob("*.csv")}
    one = command("predict", saved/"whole", "--input", "in/a.csv", "--output", "one.csv")
    assert one[0] == 0 and first["a.csv"][0] == (tmp_path/"one.csv").read_bytes()                # as the single file gives it
    assert call()[2] == "Labelled 0 rows; 3 of 3 files are in out\n"
    assert all(path.stat().st_mtime_ns == first[path.name][1] for path in (tmp_path/"out").glob("*.csv"))
    (reviews/"b.csv").write_text("id,text\n3,another\n")
    assert "Labelled 1 rows" in call()[2]                                                        # another input
    assert "Labelled 5 rows" in call("adapter")[2]                                               # another model
    (tmp_path/"out"/"c.csv").unlink()
    assert "Labelled 2 rows" in call("adapter")[2]                                               # the output is gone


def test_what_a_person_changed_is_not_replaced(command, saved, reviews, tmp_path):
    (tmp_path/"out").mkdir()
    (tmp_path/"out"/"a.csv").write_text("my,own\nnotes,here\n")
    code, _, err = command("predict", saved/"whole", "--input", "in/*.csv", "--output", "out")
    assert code == 2 and "in/a.csv: out/a.csv exists and holds no answers" in err and "1 of 3 files have no labels" in err
    edited = (tmp_path/"out"/"b.csv").read_text().replace("NEG", "POS").replace("POS", "mine")
    (tmp_path/"out"/"b.csv").write_text(edited)
    code, _, err = command("predict", saved/"adapter", "--input", "in/*.csv", "--output", "out")
    assert code == 2 and "was changed after it was written" in err and (tmp_path/"out"/"b.csv").read_text() == edited


def test_a_bad_shard_is_named_and_the_others_are_done(command, saved, reviews, tmp_path):
    (reviews/"b.csv").write_text("note\nno texts\n")
    (reviews/"d.csv").write_bytes(b"\xff\xfe\0broken")
    code, out, err = command("predict", saved/"whole", "--input", "in/*", "--output", "out")
    assert (code, out) == (2, "") and {path.name for path in (tmp_path/"out").glob("*.csv")} == {"a.csv", "c.csv"}
    assert "in/b.csv: in/b.csv has no column 'text'" in err and "in/d.csv: " in err and "2 of 4 files have no labels" in err
    assert "Traceback" not in err
    (reviews/"b.csv").write_text("text\nnow it is good\n")
    (reviews/"d.csv").unlink()
    assert command("predict", saved/"whole", "--input", "in/*", "--output", "out")[2].endswith("Labelled 1 rows; 3 of 3 files are in out\n")


def test_folders_are_kept_and_outputs_are_no_inputs(command, saved, reviews, tmp_path):
    (reviews/"May").mkdir()
    (reviews/"a.csv").rename(reviews/"May"/"a.csv")
    for _ in range(2): assert command("predict", saved/"whole", "--input", "in/**/*.csv", "--output", "in/out")[0] == 0
    assert sorted(str(path.relative_to(reviews/"out")) for path in (reviews/"out").rglob("*.csv")) == ["May/a.csv", "b.csv", "c.csv"]


# --- processes of this machine


def workers_of(process):
    "Processes of Python below a command that have loaded the package"
    below = psutil.Process(process.pid).children(recursive=True)
    return [worker for worker in below if "loky" in " ".join(worker.cmdline()) and "tracker" not in " ".join(worker.cmdline())]


@pytest.mark.slow
def test_processes_do_what_one_process_does(start, alone, tmp_path):
    error = done(start(*SENTIMENT, *PLAN, "--jobs", "2", "--out", "mine"))
    assert sorted(named(error)) == sorted(name.removesuffix(".json") for name in alone) and "Traceback" not in error
    assert found(tmp_path/"mine") == alone


@pytest.mark.slow
def test_a_killed_process_costs_nothing_but_time(start, alone, tmp_path):
    job = start(*SENTIMENT, *PLAN, "--jobs", "2", "--out", "mine")
    wait_for(lambda: len(list((tmp_path/"mine"/"records").glob("*.json"))) >= 2, job)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path/"mine"/"records").glob("*.json")}
    workers_of(job)[0].kill()
    told = named(done(job))
    assert len(told) == len(set(told)) >= 11, "a run was done twice"
    assert found(tmp_path/"mine") == alone and all(path.stat().st_mtime_ns == when for path, when in kept.items())


@pytest.mark.slow
@pytest.mark.parametrize("stop", [lambda job: os.killpg(job.pid, signal.SIGINT), lambda job: job.terminate()], ids=["ctrl-c", "sigterm"])
def test_a_signal_stops_all_and_the_next_call_goes_on(stop, start, alone, tmp_path):
    job = start(*SENTIMENT, *PLAN, "--jobs", "2", "--out", "mine", start_new_session=True)
    wait_for(lambda: len(list((tmp_path/"mine"/"records").glob("*.json"))) >= 2, job)
    below = psutil.Process(job.pid).children(recursive=True)
    stop(job)
    out, error = job.communicate(timeout=60)
    assert job.returncode == 130 and out == "" and "Traceback" not in error
    _, alive = psutil.wait_procs(below, timeout=20)
    assert not alive
    error = done(start_again(tmp_path, "--jobs", "2"))
    assert found(tmp_path/"mine") == alone and len(named(error)) < 11


def start_again(place, *more):
    return subprocess.Popen([*SENTIMENT, *PLAN, *more, "--out", "mine"], cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True, env=os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"})


# --- clusters


@pytest.fixture
def cluster():
    "Two workers of dask as processes of this machine, on loopback: (address, client)"
    distributed = pytest.importorskip("distributed", reason="dask is not installed (the extra `dask`)")
    local = dict(n_workers=2, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address=None, silence_logs=50)
    with distributed.LocalCluster(**local) as cluster, distributed.Client(cluster) as client: yield cluster.scheduler_address, client


def kill_a_busy_worker(client, job):
    "kill -9 a worker that has a job"
    pids, busy = client.run(os.getpid), {}
    def look():
        busy.update({place: tasks for place, tasks in client.processing().items() if tasks and place in pids})
        return busy
    wait_for(look, job)
    os.kill(pids[next(iter(busy))], signal.SIGKILL)


@pytest.mark.slow
def test_a_study_on_a_cluster_that_loses_a_worker(cluster, start, alone, tmp_path):
    address, client = cluster
    job = start(*SENTIMENT, *PLAN, "--engine", "dask", "--cluster", address, "--out", "mine")
    wait_for(lambda: len(list((tmp_path/"mine"/"records").glob("*.json"))) >= 2, job)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path/"mine"/"records").glob("*.json")}
    kill_a_busy_worker(client, job)
    told = named(done(job))
    assert len(told) == len(set(told)) >= 11, "a run was done twice"                             # or killed after its record
    assert found(tmp_path/"mine") == alone and all(path.stat().st_mtime_ns == when for path, when in kept.items())


@pytest.mark.slow
def test_files_on_a_cluster_that_loses_a_worker(cluster, start, saved, tmp_path, command):
    address, client = cluster
    (tmp_path/"in").mkdir()
    for n in range(8): (tmp_path/"in"/f"{n}.csv").write_text("id,text\n" + "".join(f"{i},a joy of {n} {i}\n" for i in range(200)))
    shards = ["predict", saved/"whole", "--input", "in/*.csv", "--output"]
    job = start(*SENTIMENT, *shards, "out", "--engine", "dask", "--cluster", address)
    wait_for(lambda: len(list((tmp_path/"out").glob("*.csv"))) >= 2, job)
    kill_a_busy_worker(client, job)
    error = done(job)
    told = [line.split(":")[0] for line in error.splitlines() if "200 rows" in line]
    assert len(told) == len(set(told)) >= 7 and "; 8 of 8 files are in out" in error   # one may be killed after its file, before its word
    assert command(*shards, "one")[0] == 0
    for n in range(8): assert (tmp_path/"out"/f"{n}.csv").read_bytes() == (tmp_path/"one"/f"{n}.csv").read_bytes()
    assert not list((tmp_path/"out").glob(".writing-*/*/*.csv"))


@pytest.mark.slow
def test_workers_with_threads_are_refused(command, tmp_path):
    distributed = pytest.importorskip("distributed", reason="dask is not installed (the extra `dask`)")
    local = dict(n_workers=1, threads_per_worker=2, processes=False, host="127.0.0.1", protocol="tcp", dashboard_address=None, silence_logs=50)
    with distributed.LocalCluster(**local) as cluster:
        code, out, err = command("study", "mine", "--vary", "n_train=32,64", "--methods", "bow", "--out", "mine", "--engine", "dask",
                                 "--cluster", cluster.scheduler_address)
    assert (code, out) == (2, "") and "--nthreads 1" in err and len(err.splitlines()) == 1 and not (tmp_path/"mine").exists()


@pytest.mark.slow
def test_a_cluster_of_ray_that_loses_a_worker(start, alone, tmp_path):
    pytest.importorskip("ray", reason="ray is not installed (the extra `ray`)")
    job = start(*SENTIMENT, *PLAN, "--engine", "ray", "--jobs", "2", "--out", "mine")
    wait_for(lambda: len(list((tmp_path/"mine"/"records").glob("*.json"))) >= 2, job)
    busy = [p for p in psutil.Process(job.pid).children(recursive=True) if "ray::_do" in " ".join(p.cmdline())]
    busy[0].kill()
    told = named(done(job))
    assert len(told) == len(set(told)) >= 11 and found(tmp_path/"mine") == alone


def test_a_worker_that_outlives_the_command_takes_the_new_model(settings, saved, tmp_path):
    import torch
    from sentiment_nbdev.jobs import label_shard, load_model, model_sha256
    from sentiment_nbdev.models import load_encoder
    from sentiment_nbdev.prediction import Classifier
    from sentiment_nbdev.saving import save_classifier, weights_sha256
    from sentiment_nbdev.tokenization import load_tokenizer
    folder, source = tmp_path/"model", tmp_path/"in.csv"
    shutil.copytree(saved/"whole", folder)
    source.write_text("text\na joy\n")
    [shard] = find_shards(f"{tmp_path}/in*.csv", tmp_path/"out")
    assert label_shard(shard, str(folder)).rows == 1
    torch.manual_seed(7)
    other = load_encoder(settings)
    with torch.no_grad():
        for parameter in other.parameters(): parameter.mul_(1.1)
    shutil.rmtree(folder)
    save_classifier(other, load_tokenizer(settings), folder, settings, weights_sha256(other))
    new = model_sha256(Classifier.load(folder, device="cpu"))
    assert label_shard(shard, str(folder), sha256=new).rows == 1                # not "finished", as the cached model would say
    assert load_model(str(folder))[1] == new
    assert "is another model here" in label_shard(shard, str(folder), sha256="0" * 64).problem


def test_a_file_that_another_process_is_at_is_not_counted_as_there(command, saved, tmp_path):
    from sentiment_nbdev.files import folder_lock
    (tmp_path/"in").mkdir()
    for name in "ab": (tmp_path/"in"/f"{name}.csv").write_text("text\na joy\n")
    with folder_lock(tmp_path/"out"/"a.csv"):
        code, out, error = command("predict", saved/"whole", "--input", "in/*.csv", "--output", "out")
    assert code == 2 and "1 of 2 files are in out" in error and "1 of 2 files have no labels" in error, error
    assert command("predict", saved/"whole", "--input", "in/*.csv", "--output", "out")[0] == 0
