"""Reports of studies whose runs went well, badly, or not at all: made-up records, nothing is trained."""
import json, re, shlex
from dataclasses import replace

import pytest
from sentiment_nbdev.metrics import Calibration
from sentiment_nbdev.reports import (add_record, beats_majority, compare_arms, index_numbers, on_other_data, question_table,
                                     read_results, slug, write_report)
from sentiment_nbdev.files import InputError
from sentiment_nbdev.settings import TRAINED, Settings, change_settings
from sentiment_nbdev.study import (Arm, Conditions, continue_command, Run, Study, encoder_fingerprint, open_commands, try_run, with_conditions,
                                    best_rates, check_plan, chosen_rate, drop_failed, test_runs as final_runs,
                                   fitting_sizes, known_rates, open_runs, plan_study, rate_arms, rate_grid, record_file, trial_runs, write_study)
from sentiment_nbdev.records import Cost, RunRecord, write_record

SETTINGS = Settings(n_train=100, n_validation=50, n_test=200)
TWO = (Arm("lora", "lora", {}, (1e-3,), against="full"), Arm("full", "full", {}, (5e-5,), against="full"))


def record(run, accuracy=0.9, status="done", rows="same", error=""):
    "A record with the given accuracy on validation and test; the first rows are the wrong ones"
    n, settings = run.settings.n_test, run.settings.__dict__ | dict(model=run.settings.model)
    about = dict(n=run.settings.n_validation, share_last=0.5, tokens=1, sha256=rows)
    rate = getattr(run.settings, f"lr_{run.method}", None)
    if status == "failed": return RunRecord(run.method, rate, settings, {}, status=status, error=error)
    scores = dict(accuracy=accuracy, f1=accuracy, mcc=0.0, nll=0.5 if status == "done" else float("nan"), ece=0.1)
    tested = run.test and status == "done"
    wrong = round((1 - accuracy) * n)
    bins = [dict(n=n, confidence=0.9, accuracy=accuracy)]
    calibration = Calibration(1.0, 0.5, 0.1, bins, 0.5, 0.1, bins) if tested else None
    split = dict(train=about, validation=about) | (dict(test=dict(about, n=n, texts_sha256=rows)) if tested else {})
    return RunRecord(run.method, rate, settings, dict(trainable=1, total=2, fraction=0.5), rows=split, epochs=[dict(epoch=1, step=1, **scores)], validation=scores,
                     test=dict(scores, n=n) if tested else {}, correct="0" * wrong + "1" * (n - wrong) if tested else "", calibration=calibration,
                     cost=Cost(seconds=1.0, seconds_per_epoch=1.0, peak_memory_bytes=1), environment=dict(hardware="none", threads=1, cores=1, device="cpu", precision="fp32"), status=status,
                     by_length=[dict(longest=128, n=n, correct=n - wrong, tokens=1, cut=0)] if tested else [])


def fill(study, out, make):
    "Write the plan and a record for each of its runs"
    write_study(study, out)
    for stage in (trial_runs(study), lambda: final_runs(study, out)):
        for run in stage() if callable(stage) else stage: write_record(make(run), record_file(run, out))
    return write_report(out)


def test_a_large_difference_is_called_one(tmp_path):
    page = fill(Study("verdict", TWO, SETTINGS, seeds=(1, 2, 3)), tmp_path, lambda run: record(run, 0.6 if run.method == "lora" else 0.95))
    assert "lora lower than full by 35.0 points" in page and "35.0" in page


def test_equal_arms_are_called_equivalent_where_rows_are_enough(tmp_path):
    "And the index of numbers has the p-values; Holm's correction goes over both families of tests"
    page = fill(Study("verdict", TWO, replace(SETTINGS, n_test=2000), seeds=(1, 2)), tmp_path, record)
    assert "lora against full (rows and seeds): lora equivalent to full within ±1 point (95 % interval" in page
    [pair] = json.loads((tmp_path/"summary.json").read_text())["comparisons"]
    assert pair["equivalence_holm"] == pair["result"]["equivalence_p"] < 0.05 and pair["result"]["margin"] == 0.01
    [wide] = compare_arms(read_results(tmp_path).arms, margin=0.0001)
    assert "no difference shown" in wide.sentence and wide.result.margin == 0.0001


def test_tables_say_which_interval_is_which(tmp_path):
    page = fill(Study("verdict", TWO, SETTINGS, seeds=(1,)), tmp_path/"one", record)
    assert "of a difference over rows, one seed." in page and "| 1 run |" in page.replace("  ", " ").replace("  ", " ") and "(1)" not in page
    assert "of a difference over rows and seeds." in fill(Study("verdict", TWO, SETTINGS, seeds=(1, 2)), tmp_path/"two", record)


def test_groups_of_rows_are_passed_on_when_all_records_have_them(tmp_path):
    groups = [row // 4 for row in range(SETTINGS.n_test)]
    def grouped(run):
        made = record(run, 0.9 if run.method == "lora" else 0.8)
        return replace(made, rows=made.rows | dict(test=made.rows["test"] | dict(groups=groups)))
    page = fill(Study("verdict", TWO, SETTINGS, seeds=(1, 2)), tmp_path/"all", grouped)
    assert "lora against full (groups and seeds): lora higher" in page and "of a difference over groups and seeds." in page
    some = fill(Study("verdict", TWO, SETTINGS, seeds=(1, 2)), tmp_path/"some", lambda run: grouped(run) if run.method == "lora" else record(run, 0.8))
    assert "(rows and seeds)" in some
    [wide], [narrow] = (read_results(tmp_path/name).differences for name in ("all", "some"))
    assert wide.result.groups == 50 and wide.result.high - wide.result.low > narrow.result.high - narrow.result.low


def test_old_and_new_bins_are_told_apart(tmp_path):
    def make(run):
        made = record(run)
        return made if run.method == "full" else replace(made, calibration=replace(made.calibration, brier=0.2, brier_raw=0.3, binning="equal counts"), test=made.test | dict(brier=0.3))
    page = fill(Study("verdict", TWO, SETTINGS, seeds=(1,)), tmp_path, make)
    assert "ECE over ten bins of equal counts (lora); over ten bins of equal width (full)." in page and "Brier after" in page
    assert "Brier" not in fill(Study("verdict", TWO, SETTINGS, seeds=(1,)), tmp_path/"old", record)


def test_a_single_seed_needs_mcnemar_too(tmp_path):
    page = fill(Study("verdict", TWO, SETTINGS, seeds=(1,)), tmp_path, lambda run: record(run, 0.9 if run.method == "lora" else 0.92))
    assert "no difference shown" in page and "McNemar" in page and "one seed" in page


def test_lost_seeds_are_told(tmp_path):
    def make(run): return record(run, status="diverged" if run.method == "lora" and run.settings.seed == 2 else "done")
    page = fill(Study("verdict", TWO, SETTINGS, seeds=(1, 2, 3)), tmp_path, make)
    assert "lora: 1 of 3 seeds have no test (diverged)" in page


def test_an_arm_that_lost_every_seed_stays_in_the_table(tmp_path):
    page = fill(Study("traps", TWO, SETTINGS, seeds=(1, 2)), tmp_path, lambda run: record(run, status="done" if run.method == "full" else "diverged"))
    assert "no test" in page and "lora: 2 of 2 seeds" in page


def test_failed_trials_choose_nothing_and_do_not_break_the_report(tmp_path):
    study = Study("learning-rate", rate_arms(2), SETTINGS, seeds=(1,), test=False)
    page = fill(study, tmp_path, lambda run: record(run, status="failed", error="out of memory") if run.method == "lora" else record(run))
    by_name = {arm.name: arm for arm in study.arms}
    assert chosen_rate(study, by_name["lora"], tmp_path) is None and chosen_rate(study, by_name["full"], tmp_path) is not None
    assert "lora: best so far" in page and re.search(r"\| lora +\|", page)


def test_a_method_that_always_diverges_has_no_best_rate(tmp_path):
    study = Study("learning-rate", rate_arms(2), SETTINGS, seeds=(1,), test=False)
    fill(study, tmp_path/"learning-rate", lambda run: record(run, status="diverged"))
    assert best_rates(SETTINGS, tmp_path/"learning-rate") == {m: getattr(SETTINGS, f"lr_{m}") for m in TRAINED}


@pytest.mark.parametrize("changed", [dict(epochs=9), dict(lora_r=16), dict(n_train=99), dict(lr_lora=0.5)])
def test_rates_carry_over_to_the_same_settings_only(tmp_path, changed):
    fill(Study("learning-rate", rate_arms(2), SETTINGS, seeds=(1,), test=False), tmp_path/"learning-rate", record)
    assert best_rates(replace(SETTINGS, seed=7, n_test=9), tmp_path/"learning-rate")["lora"] in rate_grid("lora", 2)
    other = replace(SETTINGS, **changed)
    assert best_rates(other, tmp_path/"learning-rate")["lora"] == other.lr_lora


def test_records_on_other_rows_are_refused(tmp_path):
    study = Study("learning-rate", rate_arms(2), SETTINGS, seeds=(1,), test=False)
    with pytest.raises(InputError, match="the data has changed"): fill(study, tmp_path, lambda run: record(run, rows=run.id))


def test_other_cuts_of_the_same_texts_can_be_compared(tmp_path):
    arms = Arm("left", "lora", {}, (1e-3,)), Arm("right", "lora", dict(truncation_side="right"), (1e-3,), against="left")
    study = Study("sides", arms, SETTINGS, seeds=(1, 2))
    fill(study, tmp_path, record)
    results = read_results(tmp_path)
    assert [d.name for d in results.differences] == ["right"] and results.summaries[0].scores.seeds == 2


def test_learned_knows_three_classes():
    about = dict(n=500, share_last=0.33, share_most=0.34)
    assert beats_majority(RunRecord("full", 1e-4, {}, {}, rows=dict(validation=about), validation=dict(accuracy=0.65)))
    assert not beats_majority(RunRecord("full", 1e-4, {}, {}, rows=dict(validation=about), validation=dict(accuracy=0.35)))


@pytest.mark.parametrize("name", ["targets", "labels", "truncation", "traps", "verdict"])
def test_every_arm_has_a_partner_or_is_one(name):
    check_plan(study := plan_study(name, Settings(), dict(full=5e-5, lora=1e-3)))
    arms = study.arms
    names = [arm.name for arm in arms]
    assert len(names) == len(set(names)) and {arm.against for arm in arms} - {""} <= set(names)
    assert sum(arm.against not in ("", arm.name) for arm in arms) >= len(arms) // 2


@pytest.mark.parametrize("name", ["targets", "labels", "truncation", "traps", "verdict"])
def test_quick_is_quick(name):
    study = plan_study(name, Settings(), dict(full=5e-5, lora=1e-3), quick=True)
    check_plan(study)
    assert all(run.settings.n_train <= 64 and run.settings.epochs == 1 and run.settings.max_length <= 32 for run in trial_runs(study))
    assert all(arm.changes.get("n_train", 0) <= 64 and arm.changes.get("max_length", 0) <= 32 for arm in study.arms)


def test_sizes_end_where_the_rows_do():
    assert fitting_sizes(Settings())[-1] == 1000 and fitting_sizes(Settings(n_validation=200))[0] == 50


def test_a_plan_without_records_may_be_mended(tmp_path):
    write_study(Study("mine", TWO, SETTINGS), tmp_path)
    write_study(Study("mine", TWO, replace(SETTINGS, epochs=2)), tmp_path)
    assert json.loads((tmp_path/"study.json").read_text())["settings"]["epochs"] == 2


def test_a_begun_study_keeps_its_rates_when_better_ones_become_known(tmp_path):
    fill(plan_study("traps", SETTINGS, dict(full=5e-5, lora=1e-3), seeds=(1,)), tmp_path/"traps", record)
    fill(Study("learning-rate", rate_arms(3), SETTINGS, seeds=(1,), test=False), tmp_path/"learning-rate", lambda run: record(run, 0.8 if run.settings.lr_lora < 1e-2 else 0.9))
    assert known_rates(SETTINGS, tmp_path/"traps") == dict(full=5e-5, lora=1e-3) != known_rates(SETTINGS, tmp_path/"targets")


def test_a_study_knows_that_its_data_or_its_encoder_has_changed(tmp_path):
    (tmp_path/"a.csv").write_text("text,label\n" + "\n".join(f"review {n},{'NEG' if n % 2 else 'POS'}" for n in range(60)))
    own = replace(SETTINGS, data=str(tmp_path/"a.csv"), n_train=20, n_validation=10, n_test=10)
    planned = with_conditions(Study("own", (Arm("bow", "bow"),), own, seeds=(1,)))
    run, = final_runs(planned, tmp_path)
    assert (planned.precision, planned.threads, planned.encoder_sha256) == ("", 0, {})           # a bag of words has no use for them
    (tmp_path/"a.csv").write_text((tmp_path/"a.csv").read_text().replace("review 1,NEG", "review 1,POS"))
    with pytest.raises(InputError, match="a.csv has changed"): try_run(run, tmp_path)
    changed = with_conditions(Study("own", (Arm("bow", "bow"),), own, seeds=(1,)))
    assert final_runs(changed, tmp_path)[0].id != run.id
    with pytest.raises(InputError, match="the encoder .* has changed"):
        try_run(Run("probe", own, conditions=Conditions(encoder="0" * 64)), tmp_path)


def test_an_encoder_without_a_pooler_has_one_fingerprint(tmp_path, tiny_encoder):
    from transformers import AutoTokenizer, BertConfig, BertForMaskedLM
    BertForMaskedLM(BertConfig.from_pretrained(tiny_encoder)).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny_encoder).save_pretrained(tmp_path)
    assert len({encoder_fingerprint(replace(SETTINGS, model=str(tmp_path), revision="", seed=seed)) for seed in (1, 2)}) == 1


def test_a_folder_of_an_earlier_version_is_left_alone(tmp_path):
    study = Study("own", TWO, SETTINGS, seeds=(1,))
    page = fill(study, tmp_path, record)
    for path in (tmp_path/"records").glob("*.json"): path.rename(path.with_name(f"old-{path.name}"))
    with pytest.raises(InputError, match="does not name"): write_report(tmp_path)
    assert (tmp_path/"report.md").read_text() == page
    with pytest.raises(InputError, match="earlier version"): write_study(replace(study, data_sha256={"corpus text label": "0"}), tmp_path)


def test_a_refused_plan_says_what_differs(tmp_path):
    begun = replace(Study("own", TWO, SETTINGS, seeds=(1,)), data_sha256={"corpus": "a"}, precision="bf16", threads=4)
    fill(begun, tmp_path, record)
    with pytest.raises(InputError, match="precision bf16, here fp32, threads 4, here 2"): write_study(replace(begun, precision="fp32", threads=2), tmp_path)
    with pytest.raises(InputError, match="epochs"): write_study(replace(begun, settings=replace(SETTINGS, epochs=9)), tmp_path)
    with pytest.raises(InputError, match="corpus has changed"): write_study(replace(begun, data_sha256={"corpus": "b"}), tmp_path)


def test_listed_commands_bring_the_conditions_along(tmp_path):
    listed = open_commands(replace(Study("own", TWO, SETTINGS, seeds=(1,)), precision="fp32", threads=4), tmp_path, ["study", "own", "--list"])
    assert all("--threads 4 --set precision=fp32 --run" in line for line in listed)


def test_failed_runs_can_be_opened_again(tmp_path):
    study = Study("own", TWO, SETTINGS, seeds=(1,))
    fill(study, tmp_path, lambda run: record(run, status="failed", error="out of memory") if run.method == "lora" else record(run))
    assert len(open_runs(study, tmp_path)) == 0 and drop_failed(tmp_path) == 1 and [run.method for run in open_runs(study, tmp_path)] == ["lora"]


def test_added_records_do_not_spoil_a_table(tmp_path):
    study = Study("own", TWO, SETTINGS, seeds=(1,))
    fill(study, tmp_path/"own", record)
    run = final_runs(study, tmp_path/"own")[0]
    folder = add_record(record_file(run, tmp_path/"own"), tmp_path)
    before = sorted(folder.rglob("*"))
    write_record(record(run, rows="other"), tmp_path/"other.json")
    with pytest.raises(InputError, match="other rows"): add_record(tmp_path/"other.json", tmp_path)
    write_record(record(run, 0.5), tmp_path/"again.json")
    with pytest.raises(InputError, match="another run"): add_record(tmp_path/"again.json", tmp_path)
    assert sorted(folder.rglob("*")) == before


def test_an_arm_whose_best_rate_is_the_last_one_tries_one_more(tmp_path):
    study = Study("learning-rate", (Arm("full", "full", {}, (1e-5, 2e-5, 4e-5)),), SETTINGS, seeds=(1,), test=False, extend=True)
    write_study(study, tmp_path)
    best = dict(zip((1e-5, 2e-5, 4e-5, 8e-5, 1.6e-4), (0.6, 0.7, 0.8, 0.9, 0.8)))
    while todo := open_runs(study, tmp_path):
        for run in todo: write_record(record(run, best[run.settings.lr_full]), record_file(run, tmp_path))
    assert chosen_rate(study, study.arms[0], tmp_path) == 8e-5 and len(trial_runs(study, tmp_path)) == 5
    summary = read_results(tmp_path).summaries[0]
    assert list(summary.rates) == ["1e-05", "2e-05", "4e-05", "8e-05", "0.00016"] and not summary.edge


def test_each_seed_draws_its_own_training_rows_and_the_first_those_of_the_sample():
    study = plan_study("verdict", SETTINGS, dict(bitfit=1e-3, last2=1e-4, full=5e-5, lora=1e-3), seeds=(42, 43), whole_test=False)
    runs = {arm.name: [study.run(arm, seed, arm.rates[0] if arm.rates else None, True) for seed in study.seeds_of(arm)] for arm in study.arms}
    assert [run.settings.train_seed for run in runs["full"]] == [0, 43] == [run.settings.train_seed for run in runs["bow"]]
    assert len({run.id for several in runs.values() for run in several}) == 7 * 2


def test_pairs_share_their_training_rows(tmp_path):
    "A bag of words without randomness meets every seed of the others, but not when those had other training rows"
    arms = Arm("bow", "bow", against="full"), TWO[1]
    for draws, seeds in ((False, 3), (True, 3)):
        study = Study("verdict", arms, SETTINGS, seeds=(42, 43, 44), draws=draws)
        fill(study, tmp_path/str(draws), record)
        assert len(read_results(tmp_path/str(draws)).differences) == 1
        assert read_results(tmp_path/str(draws)).differences[0].result.seeds == seeds
        assert len(read_results(tmp_path/str(draws)).arm("bow").tests) == (3 if draws else 1)


@pytest.mark.parametrize("name, changed, points", [("learning-rate", dict(pooling="mean", n_train=100, n_validation=50), 3),
                                                    ("warmup", dict(data="stanfordnlp/imdb", labels=("down", "up"), n_validation=200), 0)])
def test_an_unfinished_study_names_the_command_that_goes_on(tmp_path, name, changed, points):
    "And the command means the same plan, wherever the rest of its settings come from"
    from sentiment_nbdev.cli import chosen_settings
    settings = change_settings(Settings(), **changed)
    plan = plan_study(name, settings, dict.fromkeys(TRAINED, 1e-4), seeds=(42, 45), points=points)
    write_study(plan, tmp_path)
    first = trial_runs(plan) or final_runs(plan, tmp_path)
    write_record(record(first[0]), record_file(first[0], tmp_path))
    [line] = [line for line in write_report(tmp_path).splitlines() if line.startswith("- To go on")]
    words = shlex.split(line.split("`")[1])
    assert words[:3] == ["sentiment", "study", name] and words[-4:] == ["--seeds", "42,45", "--out", "FOLDER"]
    flags = dict(zip(words[3:-4:2], words[4:-4:2]))
    named = {flag[2:].replace("-", "_"): value for flag, value in flags.items() if flag not in ("--set", "--points")}
    sets = [value for flag, value in zip(words[3::2], words[4::2]) if flag == "--set"]
    again = chosen_settings(None, None, sets, **{k: int(v) if v.isdigit() and not k.startswith("n_") else v for k, v in named.items()})
    assert plan_study(name, again, plan.base_rates, seeds=(42, 45), points=int(flags.get("--points", 0))) == plan


def test_rows_of_whole_groups_make_the_interval_of_an_accuracy_wider(tmp_path):
    "Two hundred rows of twenty films, each film right or wrong as a whole, are worth about twenty rows"
    films = [row // 10 for row in range(200)]
    fill(Study("verdict", TWO, SETTINGS, seeds=(1, 2)), tmp_path/"rows", record)
    fill(Study("verdict", TWO, SETTINGS, seeds=(1, 2)), tmp_path/"films", record)
    (tmp_path/"films"/"groups").mkdir()
    (tmp_path/"films"/"groups"/"same.json").write_text(json.dumps(films))
    page = write_report(tmp_path/"films")
    assert "(Wilson, reviews of a group counted together)" in page
    def width(folder): return (lambda s: s.accuracy_high - s.accuracy_low)(read_results(tmp_path/folder).summaries[0].scores)
    assert 2.5 < width("films") / width("rows") < 4.5          # about the square root of ten


def test_models_judged_on_further_data_have_tables_of_their_own(tmp_path):
    "Where every answer is turned round, the order of the methods is, too"
    def on_both(run):
        made = record(run, 0.7 if run.method == "lora" else 0.9)
        if not made.test: return made
        turned = "".join("10"[int(bit)] for bit in made.correct)
        return replace(made, others={"./revised": dict(made.test, accuracy=1 - made.test["accuracy"], correct=turned)})
    page = fill(Study("verdict", TWO, SETTINGS, seeds=(1, 2)), tmp_path, on_both)
    assert "## Judged on ./revised" in page
    results = read_results(tmp_path)
    judged = on_other_data(results, "./revised")
    assert [round(s.scores.accuracy, 2) for s in judged.summaries] == [0.3, 0.1]
    assert "lora lower than full by 20.0 points" in results.differences[0].sentence
    assert "lora higher than full by 20.0 points" in judged.differences[0].sentence
    numbers = index_numbers(tmp_path.parent)
    assert round(numbers[f"{slug(tmp_path.name)}.on-revised.lora.accuracy"], 2) == 0.3


def test_one_question_in_several_studies_is_one_table(tmp_path):
    fill(Study("verdict", TWO, replace(SETTINGS, n_test=2000), seeds=(1, 2)), tmp_path/"a", record)
    fill(Study("verdict", TWO, SETTINGS, seeds=(1,)), tmp_path/"b", lambda run: record(run, 0.6 if run.method == "lora" else 0.95))
    write_study(Study("verdict", TWO, SETTINGS, seeds=(1, 2, 3)), tmp_path/"c")
    head, _, *lines = question_table([read_results(tmp_path/name) for name in "abc"]).splitlines()
    assert lines[0].rstrip(" |").endswith("equivalent") and "2 of 2" in lines[0]
    assert lines[1].rstrip(" |").endswith("lower") and "-35.0" in lines[1] and "60.0" in lines[1]
    assert "open" in lines[2] and "0 of 3" in lines[2]


def test_the_command_that_goes_on_knows_quick_studies_local_encoders_and_given_test_rows(tmp_path, tiny_encoder):
    quick = plan_study("warmup", Settings(), dict.fromkeys(TRAINED, 1e-4), quick=True)
    assert "--quick" in continue_command(quick, "here") and "--quick" not in continue_command(plan_study("warmup", Settings(), quick.base_rates), "here")
    assert "--model ENCODER" in (local := continue_command(replace(quick, settings=change_settings(Settings(), model=str(tiny_encoder))), "here")) and "None" not in local
    assert "--n-test 1000" in continue_command(plan_study("verdict", Settings(), quick.base_rates, whole_test=False), "here")     # without it: all there are
