"""Lessons run on a GPU as they stand: no operation mixes tensors of two devices. Without a GPU it is pretended (two_devices.py)."""
import importlib, json, pkgutil, re, sys, types
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

import sentiment_nbdev
from two_devices import two_devices

ROOT = Path(__file__).resolve().parent.parent
LESSONS = sorted(path for path in (ROOT/"nbs").glob("[01]*.ipynb"))
QUICK = ("00", "03", "04", "05", "08")
DEVICE_LINES = ["from sentiment_nbdev.settings import Settings, choose_device", "DEVICE = choose_device(Settings())"]


def code_cells(notebook):
    "The code of a lesson, without cells for slow machines, a notebook's own commands and the installation"
    cells = ["".join(cell["source"]) for cell in json.loads(Path(notebook).read_text())["cells"] if cell["cell_type"] == "code"]
    return [source for source in cells if not re.search(r"^\s*[%!]|^#\|\s*(slow|notest)|^try: import sentiment_nbdev", source, re.M)]


def run_lesson(cells):
    "Run code cells one after the other in one module, on the GPU or on a pretended one"
    import matplotlib
    matplotlib.use("Agg")
    for found in pkgutil.iter_modules(sentiment_nbdev.__path__):                            # so that all of them see the pretended device
        if found.name != "__main__": importlib.import_module(f"sentiment_nbdev.{found.name}")
    lesson = sys.modules["lesson"] = types.ModuleType("lesson")
    lesson.display = lambda *shown: None
    with nullcontext() if torch.cuda.is_available() else two_devices():
        for source in cells: exec(compile(source, "lesson", "exec"), lesson.__dict__)
    return lesson


def pinned(cells):
    "Lines that hold to the CPU without a comment, on them or above them, that says why"
    lines = [line for source in cells for line in source.split("\n")]
    return [line for above, line in zip(["", *lines], lines) if re.search("device=\"cpu\"|use_cpu=True", line) and "#" not in line and not above.strip().startswith("#")]


@pytest.mark.parametrize("notebook", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_takes_the_device_that_is_there(notebook):
    cells = code_cells(notebook)
    assert not pinned(cells)
    moved = [source for source in cells if ".to(DEVICE)" in source]
    assert not moved or sum(source.count("DEVICE = choose_device(settings)") for source in cells) == 1


@pytest.mark.parametrize("notebook", [pytest.param(path, id=path.stem, marks=[] if path.name.startswith(QUICK) else pytest.mark.slow) for path in LESSONS])
def test_a_lesson_mixes_no_devices(notebook, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_lesson(code_cells(notebook))


MIXING = {                                               # what the lessons once did, in short
    "a batch that stayed behind": "model(batch)",
    "a difference of weights": "model.weight - before",
    "a list of both": "torch.stack([model.weight, before])",
    "an index from the GPU": "before[model.weight > 0]",
    "a loss": "torch.nn.functional.mse_loss(model(batch.to(DEVICE)), batch)"}


@pytest.mark.parametrize("code", MIXING.values(), ids=MIXING)
def test_mixing_two_devices_is_seen(code):
    "The check itself: it fails where CUDA would"
    lines = ["import torch", "from sentiment_nbdev.settings import Settings, choose_device", "DEVICE = choose_device(Settings())",
             "model = torch.nn.Linear(4, 4)", "before = model.weight.detach().clone()", "batch = torch.randn(4, 4)", "_ = model.to(DEVICE)"]
    with pytest.raises(RuntimeError): run_lesson([*lines, code])


def test_numpy_needs_a_copy_on_the_cpu():
    with pytest.raises(TypeError): run_lesson(["import torch, numpy", *DEVICE_LINES, "numpy.asarray(torch.ones(3).to(DEVICE))"])
    run_lesson(["import torch, numpy", *DEVICE_LINES, "numpy.asarray(torch.ones(3).to(DEVICE).cpu())", "torch.ones(3).to(DEVICE).tolist()"])


def test_what_belongs_together_is_let_through():
    "Numbers from the CPU, copies between the places, training steps, and what a model hands on"
    run_lesson(["import copy, torch", *DEVICE_LINES, "model = torch.nn.Linear(4, 4).to(DEVICE)", "optimizer = torch.optim.AdamW(model.parameters())",
                "model(torch.ones(2, 4, device=DEVICE)).sum().backward()", "optimizer.step(), optimizer.zero_grad()",
                "assert copy.deepcopy(model).weight.device.type == DEVICE.type", "model.weight.detach() * torch.tensor(2.0)",
                "model.weight.data.copy_(torch.ones(4, 4))", "model.cpu()(torch.ones(2, 4))"])


def test_training_leaves_the_model_on_the_device(settings):
    "`Trainer` moves the model: a batch must follow, and a copy of the weights from before stays behind"
    lines = ["from dataclasses import replace", "from sentiment_nbdev.runs import prepare_rows", "from sentiment_nbdev.models import load_encoder",
             "from sentiment_nbdev.training import fine_tune", *DEVICE_LINES, "settings = replace(settings, device='auto')",
             "rows, model = prepare_rows(settings), load_encoder(settings)", "before = model.classifier.weight.detach().clone()",
             "fine_tune(model, rows.tokens, rows.tokenizer, settings)", "assert model.classifier.weight.device.type == DEVICE.type"]
    lesson = run_lesson([f"from sentiment_nbdev.settings import Settings; settings = {settings!r}", *lines, "model.classifier.weight.cpu() - before"])
    assert lesson.model
    with pytest.raises(RuntimeError, match="same device"): run_lesson([f"from sentiment_nbdev.settings import Settings; settings = {settings!r}", *lines, "model.classifier.weight - before"])
