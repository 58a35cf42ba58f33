"""What we save in other hands: PEFT's and transformers' own loaders, torch.export and sentence-transformers, without this package."""
import json, os, subprocess, sys
from dataclasses import replace

import numpy as np
import pytest, torch
from sentiment_nbdev.lora import add_lora
from sentiment_nbdev.models import load_encoder
from sentiment_nbdev.saving import _how_to_load, read_card, save_adapter, weights_sha256
from sentiment_nbdev.tokenization import load_tokenizer
from stand_in_hub import COMMIT, serve
from test_encoders import TEXTS, checkpoint
from transformers import AutoModelForSequenceClassification, AutoTokenizer

CLIENT = """
import json, sys, torch, transformers
from peft import AutoPeftModelForSequenceClassification
transformers.logging.disable_progress_bar(), transformers.logging.set_verbosity_error()
folder, labels, texts = sys.argv[1], sys.argv[2].split(","), json.loads(sys.argv[3])
batch = transformers.AutoTokenizer.from_pretrained(folder)(texts, truncation=True, padding=True, return_tensors="pt")
model = AutoPeftModelForSequenceClassification.from_pretrained(folder, num_labels=len(labels)).eval()
with torch.no_grad(): logits = model(**batch).logits.tolist()
exec(sys.argv[4])    # as the model card says
answers = [critic(text)[0] for text in texts]
print(json.dumps(dict(logits=logits, labels=[answer["label"] for answer in answers], scores=[answer["score"] for answer in answers])))
"""


@pytest.mark.parametrize("labels", [("NEG", "POS"), ("bad", "mixed", "good")])
def test_an_adapter_over_an_encoder_of_the_hub(labels, tmp_path):
    "PEFT finds the encoder at its commit; a plain pipeline takes tokenizer and names from whoever asks, because PEFT keeps no config"
    encoder = tmp_path/"hub/models/me/tiny"
    encoder.mkdir(parents=True)
    settings = replace(checkpoint("bert", str(encoder)), labels=labels)
    model, tokenizer = load_encoder(settings), load_tokenizer(settings)
    sha256 = weights_sha256(model)
    model = add_lora(model, settings).eval()
    for name, parameter in model.named_parameters():
        if "lora_B" in name: torch.nn.init.normal_(parameter)
    save_adapter(model, tmp_path/"mine", replace(settings, model="me/tiny", revision=COMMIT), sha256, tokenizer)
    with torch.no_grad(): logits = model(**tokenizer(TEXTS, truncation=True, padding=True, return_tensors="pt")).logits
    code, requests = _how_to_load(str(tmp_path/"mine"), read_card(tmp_path/"mine")).split("# or without this package")[1], []
    with serve(tmp_path/"hub", requests) as address:
        own = dict(HF_ENDPOINT=address, HF_HOME=str(tmp_path/"home"), HF_HUB_DISABLE_XET="1", NO_PROXY="127.0.0.1", no_proxy="127.0.0.1")
        run = subprocess.run([sys.executable, "-c", CLIENT, tmp_path/"mine", ",".join(labels), json.dumps(TEXTS), code], env=os.environ | own, text=True, capture_output=True)
    assert run.returncode == 0, run.stderr
    given = json.loads(run.stdout.splitlines()[-1])
    np.testing.assert_allclose(given["logits"], logits, atol=1e-5)
    assert given["labels"] == [labels[number] for number in logits.argmax(-1)]
    np.testing.assert_allclose(given["scores"], logits.softmax(-1).max(-1).values, atol=1e-5)
    assert any(f"resolve/{COMMIT}/model.safetensors" in line for line in requests)


def test_a_whole_model_is_exported(saved):
    "The graph gives the logits of the model, for other numbers of texts and tokens, too"
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(saved/"whole").eval(), AutoTokenizer.from_pretrained(saved/"whole")
    two, three = (tokenizer(texts, truncation=True, padding=True, return_tensors="pt").data for texts in (TEXTS, ["a joy", "dull", "a film"]))
    free = {0: torch.export.Dim.AUTO, 1: torch.export.Dim.AUTO}
    graph = torch.export.export(model, (), two, dynamic_shapes=dict.fromkeys(two, free)).module()
    with torch.no_grad():
        for batch in (two, three): assert torch.allclose(graph(**batch).logits, model(**batch).logits, atol=1e-5)


def test_sentence_transformers_takes_the_encoder(saved):
    "As any encoder: the mean of its token vectors"
    library = pytest.importorskip("sentence_transformers")
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(saved/"whole").eval(), AutoTokenizer.from_pretrained(saved/"whole")
    batch = tokenizer(TEXTS, truncation=True, padding=True, return_tensors="pt")
    with torch.no_grad(): vectors = model.base_model(**batch).last_hidden_state
    mask = batch["attention_mask"][..., None]
    np.testing.assert_allclose(library.SentenceTransformer(str(saved/"whole"), device="cpu").encode(TEXTS), (vectors * mask).sum(1) / mask.sum(1), atol=1e-5)
