"""The four silent errors, on the real Trainer, for full fine-tuning and for LoRA."""
from dataclasses import replace

import numpy as np
import pytest, torch
from transformers import BertConfig, BertForSequenceClassification
from sentiment_nbdev.collation import make_collator
from sentiment_nbdev.runs import prepare_rows
from sentiment_nbdev.lora import add_lora
from sentiment_nbdev.files import InputError
from sentiment_nbdev.checkpoints import checkpoint_fault, seal_checkpoint
from sentiment_nbdev.trainer import SentimentTrainer, make_trainer, training_arguments
from sentiment_nbdev.training import fine_tune, mean_loss, predict_logits
from sentiment_nbdev.records import read_record

LR = 1e-3


@pytest.fixture(scope="module")
def rows(settings): return prepare_rows(replace(settings, n_train=40))


def tiny(kind, settings, dropout=0.1):
    "A small random BERT, bare or with LoRA"
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
                                                     hidden_dropout_prob=dropout, attention_probs_dropout_prob=0.0))
    return add_lora(model, settings) if kind == "lora" else model


def trainer_for(kind, rows, settings, folder, dropout=0.1, **arguments):
    trainer = make_trainer(tiny(kind, settings, dropout), rows.tokens, rows.tokenizer, settings, LR, folder, mean_loss)
    for name, value in arguments.items(): setattr(trainer.args, name, value)
    return trainer


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_loss_and_gradient_do_not_depend_on_how_a_step_is_split(kind, rows, settings, tmp_path):
    "batch 8 in one part and in two parts: the same loss and the same gradient norm"
    first = []
    for parts in (1, 2):
        arguments = training_arguments(replace(settings, batch_size=8 // parts), LR, tmp_path)
        arguments = replace(arguments, gradient_accumulation_steps=parts, eval_strategy="no", save_strategy="no", load_best_model_at_end=False)
        trainer = SentimentTrainer(tiny(kind, replace(settings, lora_dropout=0.0), dropout=0.0), arguments, loss=mean_loss,
                                   train_dataset=rows.tokens["train"].select(range(8)), data_collator=make_collator(rows.tokenizer))
        trainer.train()
        first.append(trainer.state.log_history[0])
    assert first[0]["loss"] == pytest.approx(first[1]["loss"], rel=1e-4)
    assert first[0]["grad_norm"] == pytest.approx(first[1]["grad_norm"], rel=1e-3)


@pytest.mark.parametrize("strategy, keeps", [("random", True), ("group_by_length", False)])
def test_evaluation_order(strategy, keeps, rows, settings, tmp_path):
    "Trainer's own length grouping permutes predictions; ours leaves evaluation alone"
    trainer = trainer_for("full", rows, replace(settings, sampling="group_by_length"), tmp_path, train_sampling_strategy=strategy)
    labels = trainer.predict(rows.tokens["train"].select(range(40))).label_ids
    assert (labels.tolist() == rows.tokens["train"]["labels"][:]) == keeps


def test_training_batches_are_grouped_and_complete(rows, settings, tmp_path):
    trainer = trainer_for("full", rows, replace(settings, sampling="group_by_length"), tmp_path)
    order = list(trainer._get_train_sampler())
    assert sorted(order) == list(range(40))
    assert type(trainer._get_train_sampler()).__module__ == "sentiment_nbdev.collation"


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_predictions_after_training_use_no_dropout(kind, rows, settings):
    model = tiny(kind, settings, dropout=0.5).train()
    twice = [predict_logits(model, rows.tokens["test"], rows.tokenizer, settings) for _ in range(2)]
    assert np.array_equal(*twice) and not model.training


def test_predictions_come_back_in_row_order(rows, settings):
    model = tiny("full", settings)
    together = predict_logits(model, rows.tokens["test"], rows.tokenizer, settings)
    alone = np.concatenate([predict_logits(model, rows.tokens["test"].select([i]), rows.tokenizer, settings) for i in range(16)])
    assert np.allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_resume_is_exact(kind, rows, settings, tmp_path):
    "Two epochs at once, and two epochs with a stop after the first: the same weights to the last bit"
    settings, ends = replace(settings, epochs=2, sampling="group_by_length"), []
    for start in (None, tmp_path/"whole/checkpoint-5"):
        trainer = trainer_for(kind, rows, settings, tmp_path/("resumed" if start else "whole"), load_best_model_at_end=False, save_total_limit=None)
        trainer.train(resume_from_checkpoint=start and str(start))
        ends.append(torch.cat([p.detach().flatten() for p in trainer.model.parameters() if p.requires_grad]))
    assert torch.equal(*ends)


@pytest.mark.parametrize("part", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "model.safetensors"])
def test_half_a_checkpoint_is_found_out(part, rows, settings, tmp_path):
    trainer_for("full", rows, settings, tmp_path).train()
    checkpoint = next(tmp_path.glob("checkpoint-*"))
    seal_checkpoint(checkpoint)
    assert not checkpoint_fault(checkpoint)
    content = (checkpoint/part).read_bytes()
    (checkpoint/part).write_bytes(content[:len(content) // 2])
    assert checkpoint_fault(checkpoint) == f"{part} is not what was written"
    (checkpoint/part).unlink()
    assert "it lacks" in checkpoint_fault(checkpoint)


def test_best_epoch_is_the_one_with_the_best_validation_accuracy(rows, settings, tmp_path):
    trainer = trainer_for("full", rows, replace(settings, epochs=3), tmp_path)
    trainer.train()
    accuracies = [entry["eval_accuracy"] for entry in trainer.state.log_history if "eval_accuracy" in entry]
    logits = predict_logits(trainer.model, rows.tokens["validation"], rows.tokenizer, settings)
    assert np.mean(logits.argmax(-1) == np.array(rows.tokens["validation"]["labels"])) == pytest.approx(max(accuracies))


def test_record_that_is_none(tmp_path):
    (tmp_path/"x.json").write_text('{"method": "full", "speed": 1}')
    with pytest.raises(InputError, match="is not a record"): read_record(tmp_path/"x.json")


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_balanced_weights_reach_every_step(kind, rows, settings):
    "with one row of a class in eight, the first loss is the one that the weights give by hand"
    numbers = np.flatnonzero(np.array(rows.tokens["train"]["labels"]) == 1)[:7].tolist()
    numbers.append(rows.tokens["train"]["labels"][:].index(0))
    train = rows.tokens["train"].select(numbers)
    weighted = replace(settings, class_weights="balanced", lora_dropout=0.0, batch_size=8)
    logits = torch.tensor(predict_logits(tiny(kind, weighted, dropout=0.0), train, rows.tokenizer, weighted))
    by_hand = torch.nn.functional.cross_entropy(logits, torch.tensor(train["labels"][:]), reduction="none") @ torch.tensor([*[8 / 14] * 7, 8 / 2]) / 8
    record = fine_tune(tiny(kind, weighted, dropout=0.0), dict(train=train, validation=rows.tokens["validation"]), rows.tokenizer, weighted, kind)
    assert record.history["loss"][0] == pytest.approx(by_hand.item(), rel=1e-4)


def test_patience_stops_a_run_that_no_longer_gets_better(rows, settings):
    "at a rate too small to change an answer, no epoch beats the first"
    impatient = replace(settings, epochs=6, patience=2, lr_full=1e-12)
    record = fine_tune(tiny("full", impatient), rows.tokens, rows.tokenizer, impatient)
    assert [epoch["epoch"] for epoch in record.epochs] == [1, 2, 3] and record.validation["epoch"] == 1


@pytest.mark.parametrize("by", ["accuracy", "macro_f1", "mcc"])
def test_the_chosen_score_picks_the_epoch(by, rows, settings):
    chosen = replace(settings, epochs=4, lr_full=1e-3, select_by=by)
    record = fine_tune(tiny("full", chosen), rows.tokens, rows.tokenizer, chosen)
    assert record.validation[by] == max(epoch[by] for epoch in record.epochs)
