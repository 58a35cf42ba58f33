"""Training that can be watched: a bar and the losses where a person sits, a tracker where one is named, and neither otherwise."""
import json
from dataclasses import replace

import pytest, torch
from transformers import BertConfig, BertForSequenceClassification, TrainerCallback
from transformers.integrations import integration_utils
import sentiment_nbdev.trainer
from sentiment_nbdev.files import InputError
from sentiment_nbdev.runs import prepare_rows
from sentiment_nbdev.study import relevant_settings
from sentiment_nbdev.training import fine_tune

TRAIN = """
import torch
from transformers import BertConfig, BertForSequenceClassification
from sentiment_nbdev.settings import Settings, quiet_libraries
from sentiment_nbdev.runs import prepare_rows
from sentiment_nbdev.training import fine_tune
_ = quiet_libraries()
settings = Settings(n_train=24, n_validation=16, n_test=16, max_length=32, epochs=2, device="cpu", precision="fp32")
rows = prepare_rows(settings)
torch.manual_seed(0)
model = BertForSequenceClassification(BertConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64))
record = fine_tune(model, rows.tokens, rows.tokenizer, settings)
"""


@pytest.fixture(scope="module")
def rows(settings): return prepare_rows(settings)


def tiny():
    torch.manual_seed(0)
    return BertForSequenceClassification(BertConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64))


@pytest.fixture(scope="module")
def kernel():
    "A real kernel: a function that runs a cell and gives all that it shows, in order, each as a dict of MIME type to content"
    jupyter = pytest.importorskip("jupyter_client.manager")
    pytest.importorskip("ipykernel")
    manager, client = jupyter.start_new_kernel()
    def run(code, person):
        shown = []
        def note(message):
            if message["msg_type"] in ("display_data", "update_display_data"): shown.append(message["content"]["data"])
            if message["msg_type"] == "error": shown.append({"error": "".join(message["content"]["traceback"])})
        client.execute_interactive(code, allow_stdin=person, output_hook=note, timeout=300)
        return shown
    yield run
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def test_a_person_in_jupyter_sees_a_bar_and_the_losses(kernel):
    shown = kernel(TRAIN, person=True)
    *bars, losses = shown
    assert "image/png" in losses and all("text/html" in bar for bar in bars), shown[-1]
    bar = bars[-1]["text/html"]
    assert "[6/6" in bar and any("epoch 1.33 of 2, loss 0." in bar["text/html"] for bar in bars)     # three steps per epoch; the mean loss beside the bar
    assert bar.count("<tr") == 3 and all(f"<th>{name}</th>" in bar for name in ("Epoch", "Training Loss", "Validation Loss", "Accuracy"))


def test_a_tool_that_runs_a_notebook_sees_neither(kernel):
    assert kernel(TRAIN, person=False) == []


def test_whoever_watches_the_record_is_the_same(rows, settings, capsys):
    silent, watched = (fine_tune(tiny(), rows.tokens, rows.tokenizer, settings, live=live) for live in (None, True))
    assert silent.history == watched.history and silent.epochs == watched.epochs


def test_a_tracker_gets_what_the_record_gets(rows, settings, monkeypatch):
    told = []
    class Tracker(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **kwargs): told.append(dict(logs))
    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "trackio", Tracker)
    monkeypatch.setattr(sentiment_nbdev.trainer, "find_spec", lambda name: json.__spec__)
    record = fine_tune(tiny(), rows.tokens, rows.tokenizer, replace(settings, report_to="trackio"))
    assert [logs["loss"] for logs in told if "loss" in logs] == record.history["loss"]
    assert [logs["eval_accuracy"] for logs in told if "eval_accuracy" in logs] == [epoch["accuracy"] for epoch in record.epochs]


def test_tensorboard_writes_where_it_stays(rows, settings, tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    monkeypatch.chdir(tmp_path)
    fine_tune(tiny(), rows.tokens, rows.tokenizer, replace(settings, report_to="tensorboard"))
    assert list(tmp_path.glob("runs/*/events.out.tfevents.*"))


@pytest.mark.parametrize("name", ["tensorboard", "trackio", "wandb"])
def test_a_tracker_that_is_not_installed_is_one_line_before_training(name, rows, settings, monkeypatch):
    monkeypatch.setattr(sentiment_nbdev.trainer, "find_spec", lambda name: None)
    model = tiny()
    before = [p.clone() for p in model.parameters()]
    with pytest.raises(InputError, match=f"report_to is '{name}', which is not installed: pip install {name}, or choose none"):
        fine_tune(model, rows.tokens, rows.tokenizer, replace(settings, report_to=name))
    assert all(map(torch.equal, before, model.parameters()))


def test_a_folder_of_its_name_is_no_tracker(settings, tmp_path, monkeypatch):
    "wandb leaves a folder ./wandb behind, which Python would import as an empty package"
    (tmp_path/"wandb").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    if getattr(sentiment_nbdev.trainer.find_spec("wandb"), "origin", None): pytest.skip("wandb is installed")
    with pytest.raises(InputError, match="not installed"): sentiment_nbdev.trainer.check_tracker(replace(settings, report_to="wandb"))


def test_an_unknown_tracker_is_one_line(command):
    code, _, said = command("train", "full", "--set", "report_to=paper")
    assert code == 2 and said.strip().split("\n")[-1].endswith("report_to is 'paper': choose one of none, tensorboard, trackio, wandb")


def test_who_is_told_does_not_change_a_run(settings):
    assert relevant_settings("full", replace(settings, report_to="wandb")) == relevant_settings("full", settings)
