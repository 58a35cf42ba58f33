"""Batches and their order: every row once, the same again, and exact through accelerate's loaders."""
import numpy as np
import pytest
import torch
from accelerate.data_loader import prepare_data_loader, skip_first_batches
from sentiment_nbdev.collation import LengthGroupedSampler, batches_of, length_grouped_order, padding_waste
from sentiment_nbdev.files import InputError


def some_lengths(n): return np.random.default_rng(n).integers(3, 129, n).tolist()


@pytest.mark.parametrize("n", [0, 1, 7, 8, 9, 399, 400, 401, 1003])
@pytest.mark.parametrize("batch_size", [1, 8, 32])
def test_every_row_exactly_once(n, batch_size):
    order = length_grouped_order(some_lengths(n), batch_size, seed=3, epoch=2)
    assert sorted(order) == list(range(n))
    assert order == length_grouped_order(np.array(some_lengths(n), dtype=int), batch_size, seed=3, epoch=2)


def test_only_the_last_batch_is_short_and_the_others_are_even():
    lengths = some_lengths(1003)
    *full, last = batches_of(length_grouped_order(lengths, 8, seed=0), 8)
    assert len(last) == 3 and {len(b) for b in full} == {8}
    assert padding_waste(lengths, full) < 1.05 < 1.5 < padding_waste(lengths, batches_of(range(1003), 8))


def test_the_order_of_batches_is_random_in_length():
    lengths = some_lengths(4000)
    means = [np.mean([lengths[i] for i in b]) for b in batches_of(length_grouped_order(lengths, 8, seed=0), 8)]
    assert abs(np.corrcoef(means, range(len(means)))[0, 1]) < 0.15


@pytest.mark.parametrize("batch_size,mega", [(0, 50), (-1, 50), (8, 0)])
def test_sizes_must_be_positive(batch_size, mega):
    with pytest.raises(InputError, match="1 or more"): length_grouped_order([3, 4], batch_size, 0, mega=mega)
    if batch_size < 1:
        with pytest.raises(InputError, match="1 or more"): LengthGroupedSampler([3, 4], batch_size)


def prepared(processes):
    sampler = LengthGroupedSampler(some_lengths(103), batch_size=4, seed=1)
    loader = torch.utils.data.DataLoader(torch.arange(103), batch_size=4, sampler=sampler)
    expected = batches_of(length_grouped_order(sampler.lengths, 4, 1, epoch=2), 4)[::processes]
    return sampler, prepare_data_loader(loader, num_processes=processes, process_index=0, put_on_device=False), expected


@pytest.mark.parametrize("processes", [1, 2])
def test_accelerate_passes_the_epoch_on(processes):
    _, loader, expected = prepared(processes)
    loader.set_epoch(2)
    assert [b.tolist() for b in loader] == expected


@pytest.mark.parametrize("processes", [1, 2])
def test_resuming_in_the_middle_of_an_epoch(processes):
    "As the Trainer does it: skip, then set the epoch. With two processes accelerate 1.15 does not reach the sampler."
    sampler, loader, expected = prepared(processes)
    rest = skip_first_batches(loader, 3)
    rest.set_epoch(2)
    if processes > 1: sampler.set_epoch(2)
    assert [b.tolist() for b in rest] == expected[3:]
