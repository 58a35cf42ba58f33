"""What a model says of its own sureness: the temperature that it keeps, every class, silence below a line, and what that costs."""
import json, math, shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.special import log_softmax, softmax
from sentiment_nbdev.answers import answer_names, check_answers, label_texts, own_answers, predict_file, write_rows
from sentiment_nbdev.confidence import (Confidence, check_share, count_answers, coverage_table, fit_confidence, lowest_threshold, plot_coverage, tenths,
                                        written_confidence)
from sentiment_nbdev.files import InputError
from sentiment_nbdev.metrics import wilson_interval
from sentiment_nbdev.prediction import Classifier, Prediction
from sentiment_nbdev.records import read_record
from sentiment_nbdev.saving import model_card, read_card, read_confidence
from sentiment_nbdev.settings import Settings

TEXTS = ["a joy", "two dull hours", "the train leaves at nine"]
SURE = Confidence(2.5, ((0.0, 400, 320), (0.61, 300, 285), (0.85, 100, 99)))
SMALL = ["--n-train", 48, "--n-validation", 40, "--n-test", 16, "--max-length", 24]


def refused(result, *words):
    code, out, err = result
    assert (code, out, len(err.splitlines())) == (2, "", 1) and all(word in err for word in words), err


def keep(folder, confidence):
    "Write what a card says of the probabilities, as the training does"
    card = json.loads((folder/"sentiment.json").read_text())
    card["confidence"] = confidence if isinstance(confidence, dict) else dict(temperature=confidence.temperature, counts=confidence.counts)
    (folder/"sentiment.json").write_text(json.dumps(card))


@pytest.fixture
def warm(saved, tmp_path):
    "A whole model that keeps SURE"
    folder = shutil.copytree(saved/"whole", tmp_path/"warm")
    keep(folder, SURE)
    return folder


def test_counts_by_hand():
    confidence, right = [0.99, 0.9, 0.9, 0.65, 0.5], [True, True, False, True, False]
    assert count_answers(confidence, right, [0, 0.65, 0.91, 0.995]) == ((0, 5, 3), (0.65, 4, 3), (0.91, 1, 1), (0.995, 0, 0))
    table = coverage_table(count_answers(confidence, right, [0, 0.65, 0.995]))
    assert table.loc[0.65].tolist() == pytest.approx([4, 0.8, 0.75, *wilson_interval(3, 4)])
    assert table.loc[0.995, ["answered", "coverage"]].tolist() == [0, 0] and table.loc[0.995, ["accuracy", "low", "high"]].isna().all()


@pytest.mark.parametrize("n", [1, 2, 3, 10, 11, 999])
def test_tenths_leave_at_least_their_share(n):
    confidence = np.random.default_rng(n).uniform(0.5, 1, n)
    lines = tenths(confidence)
    assert lines[0] == 0 and len(lines) <= 10 and lines == sorted(set(lines)) and all(line == round(line, 3) for line in lines)
    kept = [(confidence >= line).mean() for line in lines]
    assert kept[0] == 1 and kept[-1] > 0
    if n == 999: assert np.abs(np.array(kept) - np.arange(10, 0, -1) / 10).max() < 0.01


@pytest.mark.parametrize("confidence, right", [([], []), ([0.9], [True, False]), ([0.9, 0.8], [True])])
def test_counts_need_a_confidence_per_row(confidence, right):
    with pytest.raises(InputError, match="give one for each row"): count_answers(confidence, right)


@pytest.mark.parametrize("classes", [2, 5])
def test_the_temperature_is_that_of_the_lowest_loss(classes):
    rng = np.random.default_rng(0)
    honest = rng.normal(0, 1.5, (3000, classes))
    labels = np.array([rng.choice(classes, p=p) for p in softmax(honest, axis=1)])
    sure = fit_confidence(3 * honest, labels)
    def loss(t): return -log_softmax(3 * honest / t, axis=1)[np.arange(3000), labels].mean()
    assert min((2.0, 2.5, *np.linspace(2.6, 3.4, 81), 4.0), key=loss) == pytest.approx(sure.temperature, abs=0.011)
    assert sure.n == 3000 and sure.counts[0] == (0.0, 3000, int((honest.argmax(1) == labels).sum()))
    assert sure.counts == count_answers(softmax(3 * honest / sure.temperature, axis=1).max(1), honest.argmax(1) == labels)


def test_no_temperature_from_rows_that_are_all_right():
    "The fit would run to 0, and every answer would be certain"
    sure = fit_confidence([[2.0, 0.0], [0.0, 1.0]], [0, 1])
    assert sure.temperature is None and sure.n == 2 and "all 2 validation rows were right" in str(sure)
    np.testing.assert_array_equal(sure.probabilities([[2.0, 0.0]]), softmax([[2.0, 0.0]], axis=-1))


def test_probabilities_by_hand():
    "ln 9 at temperature 2 is ln 3: odds of three to one"
    np.testing.assert_allclose(Confidence(2.0).probabilities(np.array([[math.log(9), 0]], np.float32)), [[0.75, 0.25]], atol=1e-6)
    np.testing.assert_allclose(Confidence().probabilities([[math.log(9), 0]]), [[0.9, 0.1]])


def test_a_line_is_chosen_by_the_low_end():
    assert lowest_threshold(SURE, 0.7) == 0 and lowest_threshold(SURE, 0.9) == 0.61 and lowest_threshold(SURE, 0.94) == 0.85
    assert wilson_interval(285, 300)[0] < 0.94 < 0.95 == 285 / 300            # right often enough, but not shown
    with pytest.raises(InputError, match=r"accuracy of 0.99 on the 400 validation rows \(at most 0.946, from 100 rows\)"): lowest_threshold(SURE, 0.99)
    with pytest.raises(InputError, match="saved without the counts"): lowest_threshold(Confidence(), 0.9)


@pytest.mark.parametrize("wrong", [0, 1, 1.5, -0.1, "nan", math.nan, math.inf, "a lot", "90 %", "0,9", "", None, True])
def test_what_is_no_share_is_refused(wrong):
    with pytest.raises(InputError, match="--x is .*: write a number between 0 and 1, such as 0.9"): check_share(wrong, "--x")


def test_the_curve_ends_at_the_accuracy_of_all_rows():
    rng = np.random.default_rng(0)
    confidence = np.round(rng.uniform(0.5, 1, 500), 2)                         # many rows of the same confidence
    right = rng.random(500) < confidence
    curve = plot_coverage(confidence, right).lines[0].get_xydata()
    assert curve[-1].tolist() == pytest.approx([100, 100 * right.mean()])
    for coverage, accuracy in curve:                                           # each point is a threshold, whatever the order of equal rows
        chosen = confidence >= np.sort(confidence)[::-1][round(coverage * 5) - 1]
        assert coverage == pytest.approx(100 * chosen.mean()) and accuracy == pytest.approx(100 * right[chosen].mean())
    assert plot_coverage([0.9, 0.6], [True, False]).lines                      # fewer rows than the curve leaves out


@pytest.mark.parametrize("payload", [None, {}, [], dict(temperature=0, counts=[]), dict(temperature=-1, counts=[]), dict(temperature="2", counts=[]),
                                     dict(temperature=True, counts=[]), dict(temperature=1e400, counts=[]), dict(temperature=math.nan, counts=[]), dict(temperature=2), dict(temperature=2, counts=[[0, 5]]),
                                     dict(temperature=2, counts=[[0, 5, 6]]), dict(temperature=2, counts=[[0.5, 5, 5]]), dict(temperature=2, counts=[[0, 5, 5], [0.6, 7, 5]]), dict(temperature=2, counts=7)])
def test_a_damaged_card_is_one_line(command, saved, tmp_path, payload):
    folder = shutil.copytree(saved/"whole", tmp_path/"m")
    keep(folder, payload if isinstance(payload, dict) else {}) if payload is not None else keep(folder, dict(temperature=None))
    refused(command("predict", "m", "a joy"), "sentiment.json is damaged (confidence", "take an intact copy")


def test_a_folder_saved_before_is_uncalibrated(command, saved):
    critic = Classifier.load(saved/"whole")
    assert "confidence" not in read_card(saved/"whole") and critic.confidence == Confidence() and "uncalibrated (temperature 1" in repr(critic)
    np.testing.assert_array_equal(critic.probabilities(TEXTS), softmax(critic.logits(TEXTS), axis=-1))
    code, out, err = command("predict", saved/"whole", *TEXTS, "--every-class")
    assert code == 0 and "probabilities: uncalibrated" in err
    code, out, err = command("predict", saved/"whole", "a joy", "--min-accuracy", 0.9)
    assert (code, out) == (2, "") and "saved without the counts" in err.splitlines()[-1]


def test_a_temperature_changes_probabilities_and_nothing_else(warm, saved):
    hot, plain = Classifier.load(warm), Classifier.load(saved/"whole")
    np.testing.assert_array_equal(hot.logits(TEXTS), plain.logits(TEXTS))
    np.testing.assert_allclose(hot.probabilities(TEXTS), softmax(plain.logits(TEXTS) / 2.5, axis=-1), atol=1e-6)
    assert [p.label for p in hot.predict(TEXTS)] == [p.label for p in plain.predict(TEXTS)]
    assert [p.probability for p in hot.predict(TEXTS)] == pytest.approx(hot.probabilities(TEXTS).max(1).tolist())
    assert hot.probabilities([]).shape == (0, 2) and "temperature 2.5, fitted on 400 validation rows" in repr(hot)


def test_other_programs_see_the_same(warm):
    "transformers' pipeline takes the logits as they are: our labels, and the probabilities of temperature 1"
    from transformers import pipeline
    theirs = pipeline("text-classification", str(warm), truncation=True, device="cpu", top_k=None)
    logits, ours = Classifier.load(warm, device="cpu").logits(TEXTS), Classifier.load(warm, device="cpu").predict(TEXTS)
    for row, answer, found in zip(softmax(logits, axis=-1), ours, theirs(TEXTS)):
        assert found[0]["label"] == answer.label and found[0]["score"] == pytest.approx(row.max(), abs=1e-4)
        assert found[0]["score"] > answer.probability > 0.5


@pytest.mark.parametrize("method", ["probe", "lora"])
def test_training_saves_it_and_merging_keeps_it(command, tmp_path, method):
    code, out, err = command("train", method, *SMALL, "--set", "epochs=1", "--out", "m")
    assert code == 0, err
    sure, record = read_confidence(tmp_path/"m"), read_record(tmp_path/"m/record.json")
    assert sure.n == 40 and sure.counts[0][2] == round(40 * record.validation["accuracy"])
    assert sure.temperature == pytest.approx(record.calibration.temperature, rel=1e-5)          # the record has six digits
    assert f"temperature {sure.temperature:.3g}, fitted on 40 validation rows" in model_card(tmp_path/"m").text
    if method == "probe": return
    assert command("merge", "m", "--out", "merged")[0] == 0 and read_confidence(tmp_path/"merged") == sure
    before, after = (Classifier.load(tmp_path/name).probabilities(TEXTS) for name in ("m", "merged"))
    np.testing.assert_allclose(before, after, atol=1e-5)


def test_the_models_of_a_comparison_have_theirs(command, tmp_path):
    code, _, err = command("compare", "--methods", "probe", *SMALL, "--out", "c")
    assert code == 0, err
    folder, = (path.parent for path in (tmp_path/"c/models").rglob("sentiment.json"))
    assert read_confidence(folder).n == 40


def test_the_card_says_when_there_is_none(command, tmp_path):
    assert command("train", "probe", *SMALL, "--out", "m")[0] == 0
    card = json.loads((tmp_path/"m/sentiment.json").read_text())
    del card["confidence"]
    (tmp_path/"m/sentiment.json").write_text(json.dumps(card))
    assert "Probabilities: uncalibrated (temperature 1: none was saved with the model)." in model_card(tmp_path/"m").text


class Stars:
    "Five classes with hard names, answered at once"
    settings = replace(Settings(), labels=("1", "2", "so-so, perhaps", 'say "hi"\tthere', "très bon ★"))
    confidence = SURE
    table = np.array([[0.1, 0.2, 0.4, 0.25, 0.05], [0.02, 0.9, 0.03, 0.03, 0.02]])
    def probabilities(self, texts): return np.array([self.table[int("sure" in text)] for text in texts]).reshape(-1, 5)
    def predict(self, texts): return [Prediction.of(row, self.settings.labels) for row in self.probabilities(texts)]


NAMES = [f"probability_{label}" for label in Stars.settings.labels]


@pytest.mark.parametrize("source, target", [("csv", "csv"), ("tsv", "tsv"), ("jsonl", "jsonl"), ("parquet", "parquet"), ("csv", "jsonl"), ("jsonl", "csv"), ("parquet", "tsv"), ("csv", "parquet")])
def test_every_class_in_every_format(tmp_path, source, target):
    table = pd.DataFrame(dict(id=["007", "008", "009"], text=["a sure joy", "hm", " "]))
    write = dict(csv=lambda p: table.to_csv(p, index=False), tsv=lambda p: table.to_csv(p, index=False, sep="\t"),
                 jsonl=lambda p: table.to_json(p, orient="records", lines=True), parquet=lambda p: table.to_parquet(p))
    write[source](tmp_path/f"in.{source}")
    rows = predict_file(Stars(), tmp_path/f"in.{source}", cache=str(tmp_path/"cache"), every_class=True, min_confidence=0.5)
    assert rows.column_names == ["id", "text", "predicted", "probability", "error", *NAMES]
    write_rows(rows, tmp_path/f"out.{target}", tmp_path/f"in.{source}")
    read = dict(csv=lambda p: pd.read_csv(p, dtype=str), tsv=lambda p: pd.read_csv(p, sep="\t", dtype=str), jsonl=lambda p: pd.read_json(p, lines=True, dtype=False), parquet=pd.read_parquet)
    back = read[target](tmp_path/f"out.{target}")
    assert list(back) == rows.column_names and back["id"].tolist() == ["007", "008", "009"]
    assert back["predicted"].fillna("").tolist() == ["2", "", ""]
    assert back["probability"].astype(float).tolist()[:2] == [0.9, 0.4] and back[NAMES].iloc[2].isna().all()
    np.testing.assert_allclose(back[NAMES].iloc[:2].astype(float), Stars.table[::-1])
    assert back["error"].fillna("").tolist() == ["", "unsure: so-so, perhaps at 0.4 is below 0.5", "the text is empty"]
    assert check_answers(tmp_path/f"out.{target}") == f".{target}"              # our own: it may be replaced


def test_a_file_labelled_twice_keeps_both(tmp_path):
    "A class named 2 must not be taken for the second answers"
    (tmp_path/"in.csv").write_text("text\na sure joy\nhm\n")
    for first, second in (("in", "one"), ("one", "two"), ("two", "three")):
        write_rows(predict_file(Stars(), tmp_path/f"{first}.csv", every_class=True), tmp_path/f"{second}.csv", tmp_path/f"{first}.csv")
    names = list(pd.read_csv(tmp_path/"three.csv"))
    assert len(names) == len(set(names)) == 1 + 3 * 8
    assert names[1:9] == ["predicted", "probability", "error", *NAMES] and names[9:12] == ["predicted_3", "probability_3", "error_3"]
    assert own_answers(names) == names[17:] and {name.split("_")[-1] for name in names[17:]} == {"4"}


def test_names_are_free_and_differ():
    assert answer_names(["text"], ("a", "b")) == ["predicted", "probability", "error", "probability_a", "probability_b"]
    assert answer_names(["text", "probability_b"], ("a", "b"))[0] == "predicted_2" and answer_names(["probability_b"], ("a",))[0] == "predicted"


@pytest.mark.parametrize("header", ["predicted_sales,text", "predicted,text", "predicted,probability", "predicted_x,probability_x,error_x", "predicted_2,probability,error", "predictedx,probability,error"])
def test_a_file_with_a_similar_column_is_not_replaced(tmp_path, header):
    (tmp_path/"mine.csv").write_text(f"{header}\n{','.join('a year of work'.split()[:header.count(',') + 1])}\n")
    before = (tmp_path/"mine.csv").read_bytes()
    with pytest.raises(InputError, match="holds no answers"): write_rows(label_texts(Stars(), ["a joy"], every_class=True), tmp_path/"mine.csv")
    assert (tmp_path/"mine.csv").read_bytes() == before


@pytest.mark.parametrize("confidence, labels", [(None, ["so-so, perhaps", "2"]), (0.3, ["so-so, perhaps", "2"]), (0.4, ["so-so, perhaps", "2"]), (0.41, ["", "2"]), (0.95, ["", ""])])
def test_silence_below_a_line(tmp_path, confidence, labels):
    rows = label_texts(Stars(), ["hm", "sure"], min_confidence=confidence)
    assert rows["predicted"][:] == labels and rows["probability"][:] == [0.4, 0.9] and rows.column_names == ["text", "predicted", "probability", "error"]
    assert [bool(why) for why in rows["error"]] == [not label for label in labels]
    assert write_rows(rows, tmp_path/"labels.txt").read_text() == "".join(f"{label}\n" for label in labels)
    with pytest.raises(InputError, match="min_confidence is 1.5"): label_texts(Stars(), ["hm"], min_confidence=1.5)


def test_no_text_at_all():
    assert len(label_texts(Stars(), [], every_class=True)) == 0 and label_texts(Stars(), [" "], every_class=True)["error"][0] == "the text is empty"


@pytest.mark.parametrize("flag", ["--min-confidence", "--min-accuracy"])
@pytest.mark.parametrize("value", ["0", "1.5", "nan", "lots", "", "-1", "inf"])
def test_wrong_shares_are_one_line_before_the_work(command, tmp_path, flag, value):
    refused(command("predict", "nowhere", "a joy", f"{flag}={value}"), f"{flag} is", "between 0 and 1")


def test_one_line_only(command): refused(command("predict", "nowhere", "a joy", "--min-confidence", 0.9, "--min-accuracy", 0.9), "give one of them")


def test_command(command, warm, tmp_path):
    plain = command("predict", "warm", *TEXTS)
    assert plain[0] == 0 and plain[2] == "" and all(line.count("\t") == 2 for line in plain[1].splitlines())
    code, out, err = command("predict", "warm", *TEXTS, "--every-class", "--min-confidence", 0.999)
    assert code == 0 and "temperature 2.5, fitted on 400 validation rows" in err and "predicted\tprobability\tprobability_NEG\tprobability_POS\ttext" in err
    assert "3 of 3 rows have no label because the model is not sure enough" in err and "see error" not in err
    for line, was, text in zip(out.splitlines(), plain[1].splitlines(), TEXTS, strict=True):
        label, most, *shares, said = line.split("\t")
        assert (label, said) == ("unsure", text) and most == was.split("\t")[1] == max(shares) and sum(map(float, shares)) == pytest.approx(1, abs=0.002)
    code, out, err = command("predict", "warm", *TEXTS, "--min-accuracy", 0.9)
    assert "labels from a confidence of 0.61 on: 75.0% of 400 validation rows, 95.0% of these right (95 % interval" in err
    sure = [float(line.split("\t")[1]) >= 0.61 for line in plain[1].splitlines()]
    assert [line.split("\t")[0] != "unsure" for line in out.splitlines()] == sure
    code, out, err = command("predict", "warm", *TEXTS, "--min-accuracy", 0.99)
    assert (code, out) == (2, "") and "no threshold shows an accuracy of 0.99" in err.splitlines()[-1]


def test_command_with_a_file(command, warm, tmp_path):
    (tmp_path/"in.csv").write_text("id,text\n007,a joy\n008,\n")
    for name in ("out.csv", "out.csv", "out.jsonl", "out.parquet"):
        code, _, err = command("predict", "warm", "--input", "in.csv", "--output", name, "--every-class", "--min-confidence", 0.9999)
        assert code == 0 and "warning: 1 of 2 rows have no label, see error" in err and "1 of 2 rows have no label because" in err
    back = pd.read_csv(tmp_path/"out.csv", dtype=str)
    assert list(back) == ["id", "text", "predicted", "probability", "error", "probability_NEG", "probability_POS"] and back["predicted"].isna().all()
    code, _, err = command("predict", "warm", "--input", "out.csv", "--output", "again.csv", "--every-class")
    assert "out.csv has answers already: the new ones are in predicted_2, probability_2, error_2, probability_NEG_2, probability_POS_2" in err


def test_evaluate_says_what_silence_costs(command, warm, tmp_path):
    plain = command("evaluate", "warm")
    code, out, err = command("evaluate", "warm", "--coverage")
    scores, table = out.split("\n\n")
    assert code == 0 and scores + "\n" == plain[1] and not list(tmp_path.glob("*.png"))
    rows = [line.split() for line in table.splitlines()[2:5]]
    assert table.splitlines()[1].split() == ["answered", "coverage", "accuracy", "low", "high", "validation"]
    assert [float(row[0]) for row in rows] == [0, 0.61, 0.85] and [row[-1] for row in rows] == ["0.800", "0.950", "0.990"]   # the lines of the model's own validation
    assert rows[0][1:4] == ["16", "1.000", f"{float(dict(line.split() for line in scores.splitlines())['accuracy']):.3f}"]
    assert "temperature 2.5, fitted on 400" in table and table.splitlines()[-1].startswith("before and after it: nll ")
    code, out, err = command("evaluate", "warm", "--picture", "curve.png", "--errors", "m.csv")
    assert code == 0 and out.startswith(plain[1] + "\ncoverage (") and "confusion matrix" in out and (tmp_path/"curve.png").read_bytes()[:4] == b"\x89PNG"


def test_evaluate_measures_after_the_temperature(warm, settings):
    from sentiment_nbdev.errors import analyse_errors
    hot = replace(Classifier.load(warm), seen=frozenset())
    analysis = analyse_errors(hot, settings)
    logits, labels = hot.logits(analysis.rows["text"].tolist()), [settings.labels.index(name) for name in analysis.rows["label"]]
    nll = {t: -log_softmax(logits / t, axis=1)[np.arange(16), labels].mean() for t in (1, 2.5)}
    assert (analysis.scores["nll"], analysis.scaled["nll"]) == pytest.approx((nll[1], nll[2.5]), rel=1e-5)
    assert analysis.scores["accuracy"] == analysis.scaled["accuracy"] and analysis.rows["probability"].tolist() == pytest.approx(softmax(logits / 2.5, axis=1).max(1).tolist())


@pytest.mark.parametrize("name, words", [("curve.pdf", "must end in .png"), ("curve", "must end in .png"), ("old.png", "old.png exists: move it, or name another file with --picture"), ("folder.png", "is a folder"), ("old.png/x.png", "is no folder")])
def test_the_picture_is_checked_before_the_work(command, tmp_path, name, words):
    (tmp_path/"old.png").write_bytes(b"mine")
    (tmp_path/"folder.png").mkdir()
    refused(command("evaluate", "nowhere", "--picture", name), words)
    assert (tmp_path/"old.png").read_bytes() == b"mine"


def test_a_temperature_without_counts_is_kept(settings, tmp_path):
    from sentiment_nbdev.confidence import Confidence
    from sentiment_nbdev.saving import read_confidence, write_card
    write_card(tmp_path, "full", settings, "0" * 64, Confidence(2.0))
    assert read_confidence(tmp_path).temperature == 2.0
