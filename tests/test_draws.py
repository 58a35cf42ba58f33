"""Which rows: other training rows per seed, groups that are never split, and what a person reads when that cannot be."""
from dataclasses import replace

import pytest
from datasets import Dataset
from hypothesis import given, settings as hypothesis_settings, strategies as st
from sentiment_nbdev.data import load_reviews
from sentiment_nbdev.rows import plan_rows
from sentiment_nbdev.files import InputError
from sentiment_nbdev.settings import Settings

SETTINGS = Settings(data="x", n_train=20, n_validation=10, n_test=10, group_column="film")


def table(groups):
    return Dataset.from_dict(dict(text=[f"text {i}" for i in range(len(groups))], label=[i % 2 for i in range(len(groups))], film=groups))


def films(source, plan, split):
    part, rows = plan[split]
    return {source[part]["film"][row] for row in rows}


@hypothesis_settings(max_examples=30, deadline=None)
@given(size=st.integers(1, 4), seed=st.integers(0, 50))
def test_no_group_is_in_two_splits_of_one_file(size, seed):
    source = {"pile.csv": table([f"film {i // size}" for i in range(160)])}
    plan = plan_rows(source, replace(SETTINGS, train_seed=seed))
    train, validation, test = (films(source, plan, split) for split in ("train", "validation", "test"))
    assert not train & validation and not train & test and not validation & test
    assert [len(rows) for _, rows in plan.values()] == [20, 10, 10]


def test_other_training_rows_leave_validation_and_test_as_they_are():
    source = dict(train=table(list("abcdefghij") * 12), test=table(["z"] * 20))
    plain = replace(SETTINGS, group_column="")
    first, other = (plan_rows(source, replace(plain, train_seed=seed)) for seed in (0, 43))
    assert first["validation"] == other["validation"] and first["test"] == other["test"]
    assert first["train"] != other["train"] and not set(other["train"][1]) & set(other["validation"][1])
    assert first == plan_rows(source, replace(plain, train_seed=42))      # the sample seed by its own name draws the same


def test_the_first_draw_is_the_one_without_groups():
    source = dict(train=table([f"film {i // 2}" for i in range(200)]), test=table(["z"] * 20))
    assert plan_rows(source, SETTINGS)["train"] == plan_rows(source, replace(SETTINGS, group_column=""))["train"]


def test_a_row_without_group_stands_for_itself():
    source = dict(train=table([None] * 40), test=table([""] * 20))
    assert len(plan_rows(source, SETTINGS)["train"][1]) == 20


def test_too_few_groups_and_unknown_columns_are_said():
    source = dict(train=table(["one film"] * 40), test=table(["z"] * 20))
    with pytest.raises(InputError, match="train has 0 rows for validation whose film is in no other split, but 10 are asked"):
        plan_rows(source, SETTINGS)
    with pytest.raises(InputError, match="train has no column 'director'|test has no column 'director'"):
        plan_rows(source, replace(SETTINGS, group_column="director"))


def test_groups_of_the_test_file_that_were_learned_are_counted(tmp_path):
    table([f"film {i // 2}" for i in range(80)]).to_csv(tmp_path/"train.csv")
    table([f"film {i // 2}" for i in range(20)]).to_csv(tmp_path/"test.csv")
    with pytest.warns(UserWarning, match="values of film in test are also in train or validation"):
        load_reviews(replace(SETTINGS, data=str(tmp_path), labels=("0", "1")))
