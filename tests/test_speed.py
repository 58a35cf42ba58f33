"The fast path is the plain recipe, only faster: same logits, same gradients, same saved files. And the benchmark counts right."
import json, shutil, subprocess, sys, time
from dataclasses import replace

import pytest
import torch
from datasets import Dataset
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForSequenceClassification
from transformers.trainer_pt_utils import get_length_grouped_indices

from sentiment_nbdev.fast_path import Packing, pack, unpack
from sentiment_nbdev.collation import make_collator
from sentiment_nbdev.runs import prepare_rows
from sentiment_nbdev.lora import add_lora, merge_adapter
from sentiment_nbdev.fast_path import PADDING_FREE, PackedAttention, QuickDropout, packed_attention, skip_padding, skips_padding
from sentiment_nbdev.models import load_encoder
from sentiment_nbdev.ini import load_settings
from sentiment_nbdev.settings import PLAIN, Settings
from sentiment_nbdev.files import InputError
from sentiment_nbdev.prediction import Classifier
from sentiment_nbdev.tokenization import token_lengths
from sentiment_nbdev.load import OtherWork, cpu_seconds
from sentiment_nbdev.race import ONNX
from sentiment_nbdev.bench import Job, _as_in_a_long_run, _save_pictures, ablation_jobs, job_model, speed_summary, strongest_rival, training_flops
from sentiment_nbdev.training import mean_loss, predict_logits

ON, OFF = Settings(padding_free="on", device="cpu", hidden_dropout=0.0), Settings(padding_free="off", device="cpu", hidden_dropout=0.0)
SHAPE = dict(vocab_size=99, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, num_labels=3,
             hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, pad_token_id=1)


@pytest.fixture(scope="module")
def rows(settings): return prepare_rows(settings)


OWN = dict(albert=dict(embedding_size=16, classifier_dropout_prob=0.0), distilbert=dict(dim=32, hidden_dim=64, n_layers=2, n_heads=4, dropout=0.0, attention_dropout=0.0, seq_classif_dropout=0.0),
           modernbert=dict(local_attention=6, global_attn_every_n_layers=2, num_hidden_layers=3, attention_dropout=0.0))  # a token sees three places to either side


def tiny(kind, **changes):
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_config(AutoConfig.for_model(kind, **SHAPE | OWN.get(kind, {}) | changes))


def batch(side="right"):
    generator = torch.Generator().manual_seed(0)
    lengths, width = torch.tensor([7, 1, 12, 4]), 12
    mask = torch.arange(width).expand(4, width) < lengths[:, None]
    if side == "left": mask = mask.flip(1)
    ids = torch.randint(5, 99, (4, width), generator=generator)
    return dict(input_ids=torch.where(mask, ids, 1), attention_mask=mask.long())


def loss_and_gradients(model, inputs, labels):
    model.zero_grad()
    loss = mean_loss(model(**inputs), labels)
    loss.backward()
    return loss.item(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kind", PADDING_FREE)
def test_same_loss_and_gradients_without_padding(kind):
    model, inputs, labels = tiny(kind), batch(), torch.tensor([0, 2, 1, 0])
    loss, gradients = loss_and_gradients(model, inputs, labels)
    packed_loss, packed = loss_and_gradients(skip_padding(model, ON), inputs, labels)
    assert skips_padding(model) and abs(packed_loss - loss) < 1e-6
    assert gradients.keys() == packed.keys()
    assert all(torch.allclose(gradients[name], packed[name], atol=1e-6) for name in gradients)


@pytest.mark.parametrize("kind", PADDING_FREE)
@pytest.mark.parametrize("side", ["right", "left"])
def test_every_real_token_is_the_same_on_either_side_of_the_padding(kind, side):
    inputs = batch(side)
    real = inputs["attention_mask"].bool()
    padded, packed = (model.eval().base_model(**inputs).last_hidden_state for model in (tiny(kind), skip_padding(tiny(kind), ON)))
    assert torch.allclose(padded[real], packed[real], atol=1e-5) and not packed[~real].any()


@pytest.mark.parametrize("kind", ["deberta-v2", "fnet"])
def test_other_architectures_keep_their_padding_or_refuse(kind):
    model = tiny(kind)
    assert not skips_padding(skip_padding(model, replace(ON, padding_free="auto")))
    with pytest.raises(InputError, match=f"not tested on {kind}"): skip_padding(model, ON)


@pytest.mark.parametrize("kind, name", [("bert", "attention_probs_dropout_prob"), ("modernbert", "attention_dropout")])
def test_attention_dropout_works_without_padding(kind, name):
    model = skip_padding(tiny(kind, **{name: 0.5}), ON).train()
    assert not torch.equal(model(**batch()).logits, model(**batch()).logits)
    almost, plain = skip_padding(tiny(kind, **{name: 1e-12}), ON).train(), tiny(kind).train()     # the way of dropout, with none to speak of
    assert torch.allclose(almost(**batch()).logits, plain(**batch()).logits, atol=1e-5)


def test_a_local_window_is_kept():
    "In a row longer than the window the result is another one without it"
    near, whole = (skip_padding(tiny("modernbert", local_attention=size), ON).eval()(**batch()).logits for size in (6, 100))
    assert torch.allclose(near[[1, 3]], whole[[1, 3]], atol=1e-6) and not torch.allclose(near[2], whole[2], atol=1e-4)


def test_a_model_that_reads_from_left_to_right_is_refused():
    with pytest.raises(InputError, match="reads from left to right"): skip_padding(tiny("bert", is_decoder=True), ON)


def test_a_mask_of_ones_may_be_left_out():
    ids = batch()["input_ids"]
    expected = tiny("bert").eval()(input_ids=ids).logits
    assert torch.allclose(skip_padding(tiny("bert"), ON).eval()(input_ids=ids).logits, expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["bert", "modernbert"])
def test_one_text_is_predicted_without_bookkeeping(kind, saved, monkeypatch):
    "No fingerprint of a data set and, for a whole row, no attention weights kept for a derivative that nobody wants; the same logits"
    model, inputs = tiny(kind, global_attn_every_n_layers=1).eval(), {name: part[2:3] for name, part in batch().items()}
    classifier, texts = Classifier.load(saved/"whole", device="cpu"), ["a lovely, lovely film", "dull"]
    both, expected = classifier.logits(texts), model(**inputs).logits
    packed = skip_padding(model, ON)
    def never(*_, **__): raise AssertionError("one text does not need this")
    monkeypatch.setattr(PackedAttention, "apply", never)
    monkeypatch.setattr("datasets.arrow_dataset.generate_fingerprint", never)
    with torch.inference_mode(): assert torch.allclose(expected, packed(**inputs).logits, atol=1e-6)
    assert abs(both - [classifier.logits([text])[0] for text in texts]).max() < 1e-5


def test_pack_and_unpack_carry_gradients():
    hidden, mask = torch.randn(3, 5, 2, requires_grad=True), torch.tensor([[1, 1, 0, 0, 0], [1, 1, 1, 1, 1], [0, 0, 1, 0, 0]])
    back = unpack(*pack(hidden, mask))
    assert torch.equal(back, hidden * mask[..., None])
    assert torch.equal(torch.autograd.grad(back.sum(), hidden)[0], mask[..., None].expand(3, 5, 2).float())


def test_lora_on_a_padding_free_encoder_merges_and_saves(tmp_path):
    model = add_lora(skip_padding(load_encoder(OFF), ON), ON).eval()
    for name, p in model.named_parameters():
        if "lora_B" in name: torch.nn.init.normal_(p, std=0.02)
    inputs = batch() | dict(input_ids=batch()["input_ids"] + 1000)
    with torch.no_grad(): expected = model(**inputs).logits
    merged = merge_adapter(model)
    merged.save_pretrained(tmp_path)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    assert not skips_padding(plain)            # the file is an ordinary model
    with torch.no_grad(): assert torch.allclose(plain(**inputs).logits, expected, atol=1e-4)
    assert skips_padding(merged) and skip_padding(merged, ON) is merged


def test_losses_at_the_start_agree_in_bf16(rows):
    inputs = make_collator(rows.tokenizer)([rows.tokens["train"][n] for n in range(8)])
    labels, losses = inputs.pop("labels"), {}
    for name, precision in (("off", torch.float32), ("on", torch.bfloat16)):
        model = skip_padding(load_encoder(OFF), replace(ON, padding_free=name)).train()
        with torch.autocast("cpu", precision, enabled=precision == torch.bfloat16): losses[name] = mean_loss(model(**inputs), labels).item()
    assert losses["on"] == pytest.approx(losses["off"], rel=1e-2) and losses["on"] != losses["off"]


def test_evaluation_order_changes_nothing_but_time(rows):
    model = load_encoder(OFF)
    by_length, as_given = (predict_logits(model, rows.tokens["test"], rows.tokenizer, replace(OFF, eval_order=order, precision="fp32"))
                           for order in ("by_length", "as_given"))
    assert abs(by_length - as_given).max() < 1e-5


def test_plain_is_one_flag_and_the_original_profile():
    assert {name: getattr(load_settings(plain=True), name) for name in PLAIN} == PLAIN
    assert load_settings("original") == load_settings("original", plain=True)
    assert load_settings(plain=True, optimizer="adamw_torch_fused").optimizer == "adamw_torch_fused"


@pytest.mark.parametrize("flags, expected", [(["--plain"], PLAIN), ([], dict(padding_free="on", quick_dropout="on", attention_dropout=0.0))])
def test_the_record_says_which_parts_ran(command, tmp_path, flags, expected):
    code, _, err = command("train", "lora", *flags, "--n-train", "16", "--n-validation", "16", "--n-test", "16", "--max-length", "16", "--epochs", "1",
                           "--set", "device=cpu", "--out", tmp_path/"run")
    assert code == 0, err
    parts = json.loads((tmp_path/"run"/"record.json").read_text())["environment"]["parts"]
    assert parts.keys() == PLAIN.keys() and expected.items() <= parts.items()


@pytest.mark.parametrize("p", [0.01, 0.1, 0.5])
def test_quick_dropout_is_dropout(p):
    torch.manual_seed(0)
    x = torch.ones(400, 1001, requires_grad=True)
    out = QuickDropout(p)(x)
    assert (out == 0).float().mean().item() == pytest.approx(p, abs=4 * (p * (1 - p) / x.numel()) ** 0.5)
    assert out.max().item() == pytest.approx(1 / (1 - p), rel=1e-4)
    assert torch.equal(torch.autograd.grad(out.sum(), x)[0], out)     # the gradient passes where the number passed, equally scaled
    assert torch.equal(QuickDropout(p).eval()(x), x)
    lanes = (out == 0).float().flatten()[: x.numel() // 4 * 4].view(-1, 4)
    assert (lanes.mean(dim=0) - p).abs().max() < 5 * (p * (1 - p) / len(lanes)) ** 0.5     # none of the four decisions is biased
    assert torch.corrcoef(lanes.T).fill_diagonal_(0).abs().max() < 5 / len(lanes) ** 0.5   # nor linked to another


def test_quick_dropout_keeps_its_bits():
    "Whole numbers for booleans: the same draws, the same products, to the last bit"
    for kind in (torch.float32, torch.bfloat16):
        x, p = torch.randn(7, 33).to(kind).requires_grad_(), 0.1
        torch.manual_seed(0)
        numbers = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-2**63, None).view(torch.int16)
        drop = round(2**16 * p)
        expected = x * (numbers[:x.numel()].view(x.shape) >= drop - 2**15) * (2**16 / (2**16 - drop))
        torch.manual_seed(0)
        out = QuickDropout(p)(x)
        assert torch.equal(out, expected)
        assert torch.equal(*(torch.autograd.grad(y.float().square().sum(), x)[0] for y in (out, expected)))


cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

@cuda
@pytest.mark.parametrize("window", [None, 5])
def test_packed_attention_on_cuda_equals_the_cpu(window):
    capability = torch.cuda.get_device_capability()
    if capability < (8, 0): pytest.skip("PyTorch's varlen kernel needs compute capability 8.0")
    q, k, v = (torch.randn(1, 4, 24, 32) for _ in range(3))
    packing = Packing((2, 16), None, torch.tensor([0, 16, 24], dtype=torch.int32).cuda(), 16)
    out, _ = packed_attention(None, *(t.cuda().bfloat16() for t in (q, k, v)), packing, sliding_window=window)
    expected = PackedAttention.apply(q, k, v, [0, 16, 24], 32 ** -0.5, window and window - 1).transpose(1, 2)
    assert torch.allclose(out.float().cpu(), expected, atol=2e-2)


@cuda
@pytest.mark.parametrize("padding_free", ["off", "on"])
def test_a_step_on_cuda_lowers_the_loss(padding_free):
    chosen = Settings(padding_free=padding_free, device="cuda")
    model = skip_padding(load_encoder(chosen), chosen).cuda()
    inputs = {name: t.cuda() for name, t in (batch() | dict(input_ids=batch()["input_ids"] + 1000)).items()}
    labels, optimizer, losses = torch.tensor([0, 1, 1, 0]).cuda(), torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True), []
    for _ in range(8):
        with torch.autocast("cuda", torch.bfloat16): loss = mean_loss(model(**inputs), labels)
        loss.backward(), optimizer.step(), optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


FEW = ("--shape", "tiny", "--methods", "lora", "--rounds", "1", "--steps", "2", "--n-train", "32", "--max-length", "32",
       "--set", "n_validation=16", "--set", "n_test=16", "--set", "device=cpu", "--out", "bench")


def test_bench_writes_what_it_prints(process, tmp_path):
    run = process("bench", *FEW, "--variants", "plain,tuned,lean,ours", "--allow-busy")
    assert run.returncode == 0, run.stderr
    found = json.loads((tmp_path/"bench"/"variants.json").read_text())
    assert [line["variant"] for line in found["summary"]] == ["plain", "tuned", "lean", "ours"]
    plain, tuned, lean, ours = found["runs"]
    assert plain["tokens"] == tuned["tokens"] == ours["tokens"] == ours["computed_tokens"] == ours["eval_computed_tokens"]
    assert plain["parts"]["precision"] == "fp32" and plain["parts"]["padding_free"] == tuned["parts"]["padding_free"] == "off"
    assert plain["computed_tokens"] >= tuned["computed_tokens"] > ours["computed_tokens"] and lean["computed_tokens"] >= lean["tokens"]
    assert (tuned["parts"]["attention_dropout"], lean["parts"]["attention_dropout"]) == (0.1, 0.0)
    assert f"{found['summary'][3]['tokens_per_second'][0]:,.0f}" in run.stdout
    rival = strongest_rival(found["summary"], "lora")
    assert f"times the strongest other way ({rival})" in run.stdout.splitlines()[0] and "Not in this race: compiled" in run.stdout
    assert {"before", "during", "average", "busy"} == found["load"].keys() and all("others" in run for run in found["runs"])
    assert ("Busy machine" in run.stdout) == found["load"]["busy"]


def test_a_compiler_that_is_missing_is_a_line_and_no_crash(process, tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    run = process("bench", *FEW, "--variants", "compiled,ours", "--allow-busy")
    assert run.returncode == 0, run.stderr
    compiled, ours = json.loads((tmp_path/"bench"/"variants.json").read_text())["runs"]
    assert "seconds" not in compiled and ours["seconds"] > 0
    assert f"lora, compiled did not run: {compiled['skipped']}" in run.stdout and "ompiler" in compiled["skipped"]


@pytest.mark.slow
def test_the_compiled_rival_runs_where_there_is_a_compiler(process, tmp_path):
    if not shutil.which("g++"): pytest.skip("needs a C++ compiler")
    run = process("bench", *FEW, "--variants", "lean,compiled,ours", "--allow-busy")
    assert run.returncode == 0, run.stderr
    lean, compiled, ours = json.loads((tmp_path/"bench"/"variants.json").read_text())["runs"]
    assert compiled["seconds"] < compiled["warm_up_seconds"] and compiled["computed_tokens"] == lean["computed_tokens"] and "eval_seconds" not in compiled


def test_predictions_are_raced(process, tmp_path):
    run = process("bench", *FEW, "--measure", "predict", "--allow-busy")
    assert run.returncode == 0, run.stderr
    found = json.loads((tmp_path/"bench"/"predict.json").read_text())
    lines = {line["way"]: line for line in found["summary"]}
    assert {"pipeline, one by one", "pipeline by 32, fp32", "ours, fp32"} <= lines.keys() and set(ONNX) == set(ONNX) & {*lines, *found["skipped"]}
    assert lines["ours, fp32"]["same_label"] == 1 and lines["ours, fp32"]["largest_difference"] < 1e-4
    assert all(reason in run.stdout for reason in found["skipped"].values()) and "- one text:" in run.stdout
    assert f"{lines['ours, fp32']['texts_per_second'][0]:,.1f}" in run.stdout


def test_a_busy_machine_is_refused(command, tmp_path, monkeypatch):
    clocks = iter([(0.0, 0.0), (1e6, 0.0)])
    monkeypatch.setattr("sentiment_nbdev.load.cpu_seconds", lambda: next(clocks))
    code, out, err = command("bench", *FEW[:-1], tmp_path/"bench")
    assert code == 2 and not out and len(err.splitlines()) == 1 and "other programs use 100%" in err and "--allow-busy" in err
    assert not (tmp_path/"bench").exists()


def test_the_work_of_others_is_seen_and_our_own_is_not():
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        with OtherWork() as others: time.sleep(1)
        busy.kill()
    assert others.share is None or others.share > 0.02
    clocks = [cpu_seconds()]
    subprocess.run([sys.executable, "-c", "sum(range(10**7))"], check=True)
    clocks.append(cpu_seconds())
    assert clocks[1][1] > clocks[0][1]


def test_a_mark_goes_where_the_result_goes(tmp_path):
    runs = [dict(method="full", part=part, how=how, seconds=1.0) for part in ("nothing", "precision") for how in ("alone", "removed")]
    for busy in (False, True): _save_pictures("parts", dict(runs=runs, load=dict(busy=busy)), ("full",), tmp_path/str(busy))
    assert (tmp_path/"False"/"parts.png").read_bytes() != (tmp_path/"True"/"parts.png").read_bytes()


def test_rivals_are_grouped_as_in_a_long_run():
    generator = torch.Generator().manual_seed(0)
    lengths, size = torch.randint(5, 500, (160,), generator=generator).tolist(), 8
    rows = Dataset.from_dict(dict(input_ids=[[1] * n for n in lengths]))
    def padded(order):
        found = [len(ids) for ids in order["input_ids"]]
        return sum(max(found[k:k + size]) * size for k in range(0, len(found), size))
    torch.manual_seed(0)
    grouped, few = _as_in_a_long_run(rows, size), rows.select(get_length_grouped_indices(lengths, size))
    assert sorted(len(ids) for ids in grouped["input_ids"]) == sorted(lengths)
    assert sum(lengths) < padded(grouped) < padded(few)


def test_a_summary_without_the_plain_recipe_names_the_strongest_rival():
    line = dict(method="full", tokens_per_second=[100.0, 90, 110])
    summary = [dict(line, variant="lean"), dict(line, variant="compiled", tokens_per_second=[120.0, 1, 1]), dict(line, variant="ours", tokens_per_second=[180.0, 1, 1])]
    about = dict(settings=dict(batch_size=8, max_length=32), environment=dict(hardware="a machine", threads=2))
    first, *_ = speed_summary(about | dict(summary=summary)).splitlines()
    assert first == "- full: 180 real tokens per second, 1.50 times the strongest other way (compiled)"
    assert "Busy machine" in speed_summary(about | dict(summary=summary, load=dict(before=0.5, during=0.4, busy=True)))


@pytest.mark.parametrize("flags, shown", [
    (["--methods", "probe"], "unknown method 'probe'"), (["--measure", "speed"], "unknown measurement 'speed'"), (["--methods", ","], "nothing to measure"),
    (["--variants", "fast"], "unknown variant 'fast'"), (["--variants", ","], "nothing to measure"),
    (["--shape", "huge"], "unknown shape 'huge'"), (["--rounds", "0"], "greater than or equal to 1"), (["--n-train", "8", "--allow-busy"], "raise --n-train or lower --steps")])
def test_bench_says_what_is_wrong_before_it_measures(command, flags, shown):
    code, out, err = command("bench", *flags)
    assert code == 2 and shown in err and not out and len(err.splitlines()) == 1


@pytest.mark.parametrize("method, tolerance", [("full", 0), ("lora", 0.05)])
def test_counted_operations_are_those_that_run(method, tolerance):
    job = Job(replace(ON, precision="fp32", lora_r=1, lora_alpha=1), method, {}, shape="bert-base")
    with torch.device("meta"): model = job_model(job)
    ids = torch.zeros(2, 64, dtype=torch.long, device="meta")
    with FlopCounterMode(display=False) as counter: model(input_ids=ids).logits.sum().backward()
    encoder = next(name for name in counter.get_flop_counts() if name.endswith(".encoder"))
    ran = sum(counter.get_flop_counts()[encoder].values())
    assert abs(ran / training_flops(model.config, [64, 64], method) - 1) <= tolerance


def test_parts_are_taken_one_at_a_time(settings):
    jobs = ablation_jobs(replace(settings, precision="bf16", padding_free="on"), "lora", {})
    plain, ours = jobs["nothing", "alone"].settings, jobs["nothing", "removed"].settings
    for (part, how), job in jobs.items():
        changed = {name for name in PLAIN if getattr(job.settings, name) != getattr(plain if how == "alone" else ours, name)}
        assert changed == ({part} if part != "nothing" else set())


def test_a_bench_whose_ways_were_all_skipped_says_why():
    from sentiment_nbdev.bench import bench_table
    assert bench_table([], [dict(method="full", variant="compiled", skipped="no compiler")]) == "full, compiled did not run: no compiler"
