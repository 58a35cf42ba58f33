"""Shared by the tests: quiet libraries, a tiny saved model and adapter, the command as a function and as a process."""
import gc, json, os, re, shutil, subprocess, sys
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:      # several processes on the same cores: threads of theirs would only get in each other's way
    os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}

import pytest
from sentiment_nbdev.settings import Settings, quiet_libraries

quiet_libraries(terminal=False)


LONGEST = [f"test_{name}.py" for name in ("site", "encoders", "cli", "speed", "jobs", "study", "data", "evidence", "bad_input", "hub", "confidence", "faults",
                                          "results", "export", "tokenization", "training", "devices", "wheel", "house")]


def pytest_collection_modifyitems(items):
    "The longest files first, so that no worker is left alone with one of them at the end (with --no-loadscope-reorder)"
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


def pytest_collection_finish():
    "What was imported stays: the garbage collections at the begin of each training need not go through it again"
    gc.freeze()


@pytest.fixture(scope="session")
def settings(): return Settings(n_train=24, n_validation=16, n_test=16, max_length=32, epochs=1, device="cpu", precision="fp32")


@pytest.fixture(scope="session")
def saved(settings, tmp_path_factory):
    "A folder with an adapter (random LoRA weights), a whole model and the logits of both on two texts"
    import torch
    from sentiment_nbdev.lora import add_lora
    from sentiment_nbdev.saving import save_adapter
    from sentiment_nbdev.models import load_encoder
    from sentiment_nbdev.saving import save_classifier, weights_sha256
    from sentiment_nbdev.tokenization import load_tokenizer
    folder, encoder = tmp_path_factory.mktemp("saved"), load_encoder(settings)
    sha256 = weights_sha256(encoder)
    save_classifier(encoder, load_tokenizer(settings), folder/"whole", settings, sha256)
    model = add_lora(encoder, settings)
    for name, parameter in model.named_parameters():
        if "lora_B" in name: torch.nn.init.normal_(parameter, std=0.05)
    save_adapter(model, folder/"adapter", settings, sha256, load_tokenizer(settings))
    return folder


@pytest.fixture
def command(capsys, monkeypatch, tmp_path):
    "Run `sentiment ...` in this process, in an empty folder; gives (exit code, stdout, stderr)"
    from sentiment_nbdev.cli import main
    monkeypatch.chdir(tmp_path)
    def run(*arguments):
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()
    return run


@pytest.fixture
def process(tmp_path):
    "Run `sentiment ...` as a process of its own, in an empty folder"
    def run(*arguments, cwd=tmp_path, **keywords):
        return subprocess.run([Path(sys.executable).with_name("sentiment"), *map(str, arguments)], cwd=cwd, text=True,
                              capture_output=True, **keywords)
    return run


IN_TURN = r"""
import json, sys
from sentiment_nbdev.cli import _prepare_process, main
_prepare_process()
for arguments in json.loads(sys.argv[1]):
    code = main(arguments)
    for stream in (sys.stdout, sys.stderr): print(f"\0{code}", file=stream, flush=True)
"""


@pytest.fixture
def processes(tmp_path):
    "Run several `sentiment ...` commands one after the other in one new process: the libraries are imported once. Gives [(exit code, stdout, stderr)]"
    def run(*commands, **keywords):
        lists = json.dumps([[str(word) for word in arguments] for arguments in commands])
        done = subprocess.run([sys.executable, "-c", IN_TURN, lists], cwd=tmp_path, text=True, capture_output=True, **keywords)
        assert done.returncode == 0 and done.stdout.count("\0") == len(commands), done.stdout + done.stderr
        outs, errs = (re.split(r"\0(.*)\n", text) for text in (done.stdout, done.stderr))
        return [(int(code), out, err) for out, code, err in zip(outs[::2], outs[1::2], errs[::2])]
    return run


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory):
    "The folder of a two-layer BERT with random weights and the vocabulary of the default encoder"
    import torch
    from transformers import AutoConfig, AutoModel
    from sentiment_nbdev.tokenization import load_tokenizer
    folder, tokenizer = tmp_path_factory.mktemp("encoder")/"tiny", load_tokenizer(Settings())
    torch.manual_seed(0)
    shape = dict(vocab_size=len(tokenizer), pad_token_id=0, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
    AutoModel.from_config(AutoConfig.for_model("bert", **shape)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def start(tmp_path, tiny_encoder):
    "Start a command as a process of its own, in an empty folder that has the tiny encoder as ./tiny; one thread, so that bits can be compared"
    shutil.copytree(tiny_encoder, tmp_path/"tiny")
    def run(*command, **keywords):
        return subprocess.Popen([*map(str, command)], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                env=os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}, **keywords)
    return run
