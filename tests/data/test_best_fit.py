"""Whole documents in rows: all of each epoch, cut only where they must be, in an order of (seed, epoch)."""

from hashlib import sha256

import numpy as np
import pytest

from jaxlm.config import BestFit
from jaxlm.data import dataset, held_out, training
from jaxlm.data.best_fit import best_fit
from jaxlm.data.rows import Rows

PAD = 0
LENGTHS = (5, 2, 9, 3, 14, 2, 6, 5, 3, 8, 2, 2)


def toy(lengths=LENGTHS, predicted=None):
    """Document i is 100 i + 1, 100 i + 2, ..."""
    documents = [100 * i + 1 + np.arange(n) for i, n in enumerate(lengths)]
    return dataset.in_memory(documents, bytes=sum(lengths), vocab=10_000, pad=PAD, predicted=predicted)


def brute_bins(lengths, room):
    """Best fit by looking at every bin."""
    bins = []
    for length in sorted(lengths, reverse=True):
        fitting = [one for one in bins if room - sum(one) >= length]
        (min(fitting, key=lambda one: room - sum(one)) if fitting else bins.append([]) or bins[-1]).append(length)
    return bins


@pytest.mark.parametrize("room", [20, 37, 64])
def test_bins_are_those_of_looking_at_every_one(room):
    for seed in range(20):
        lengths = np.random.default_rng(seed).integers(1, room + 1, 60)
        found = best_fit(np.sort(lengths)[::-1], room)
        filled = np.bincount(found, weights=np.sort(lengths)[::-1]).astype(int)
        assert sorted(filled.tolist()) == sorted(map(sum, brute_bins(lengths.tolist(), room)))
        assert filled.max() <= room


@pytest.mark.parametrize("length", [14, 20, 100, 4])
@pytest.mark.parametrize("seed", [0, 5])
def test_an_epoch_holds_every_token_once(length, seed):
    data = toy()
    rows = Rows(data, length, 2, seed, packing=BestFit())
    orders = []
    for epoch in range(3):
        found = [rows.row(epoch * rows.plan.rows + i) for i in range(rows.plan.rows)]
        real = [one.ids[one.segments > 0] for one in found]
        assert sorted(np.concatenate(real).tolist()) == sorted(data.tokens.tolist())
        keys = np.concatenate([one.documents[one.segments > 0] for one in found])
        assert set(keys // data.documents) == {epoch}
        orders.append(tuple(map(tuple, real)))
        for one in found:
            padding = one.segments == 0
            assert not np.diff(padding.astype(int)).min(initial=0) < 0, "padding stands at the end"
            assert not one.ids[padding].any()
            assert not one.weights[padding].any()
            starts = np.flatnonzero(np.diff(one.segments, prepend=0) > 0)
            for start, stop in zip(starts, [*starts[1:], int((~padding).sum())]):
                document = one.ids[start] // 100
                assert (one.positions[start:stop] == one.ids[start:stop] - 100 * document - 1).all()
                if LENGTHS[document] <= length:
                    assert stop - start == LENGTHS[document], "whole"
                assert one.weights[start : stop - 1].all()
                follows = one.ids[stop - 1] % 100 < LENGTHS[document]
                assert one.weights[stop - 1] == follows
                assert one.targets[stop - 1] == (one.ids[stop - 1] + 1 if follows else PAD)
    assert len(set(orders)) == 3, "every epoch in an order of its own"


def test_only_what_is_marked_is_predicted():
    marks = [np.arange(n) % 3 == 2 for n in LENGTHS]
    data = toy(predicted=marks)
    rows = held_out(data, BestFit(), batch=3, length=16)
    batches = [rows.batch(step) for step in range(rows.steps)]
    found = np.concatenate([one["targets"][one["weights"] == 1] for one in batches])
    assert sorted(found) == sorted(np.concatenate([100 * i + 1 + np.flatnonzero(m) for i, m in enumerate(marks)]))
    assert not any(value.any() for name, value in rows.batch(rows.steps).items() if name != "rows")


def test_slices_and_steps_need_nothing_before_them():
    rows = training(toy(), BestFit(), batch=6, length=16, seed=3)
    for step in (0, 7, 1000):
        whole = rows.batch(step)
        fresh = training(toy(), BestFit(), batch=6, length=16, seed=3)
        parts = [fresh.batch(step, slice(at, at + 2)) for at in (0, 2, 4)]
        for name, value in whole.items():
            np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), value)


def test_positions_of_a_cut_document():
    continued = Rows(toy((20,)), 8, 3, 0, packing=BestFit()).batch(0)
    restarted = Rows(toy((20,)), 8, 3, 0, BestFit("row")).batch(0)
    order = np.argsort(continued["positions"][:, 0])
    assert continued["positions"][order].tolist() == [[*range(8)], [*range(8, 16)], [16, 17, 18, 19, 0, 0, 0, 0]]
    assert restarted["positions"][order].tolist() == [[*range(8)], [*range(8)], [0, 1, 2, 3, 0, 0, 0, 0]]
    assert continued["weights"].sum() == 19


def test_golden_bytes_of_the_first_rows():
    """A change here changes the data of every packed run: count the version of best_fit.Plan up."""
    found = training(toy(), BestFit(), batch=4, length=16, seed=0).batch(0)
    assert sha256(b"".join(found[name].tobytes() for name in sorted(found))).hexdigest() == DIGEST


DIGEST = "8cd42b4afb68e7079e55ea8fbf84c1200a5576797b87de628eb40d56b63c01fd"


def test_rows_are_nearly_full():
    lengths = np.random.default_rng(0).lognormal(5, 0.5, 5000).astype(int).clip(2, 512)
    data = dataset.Dataset(np.zeros(lengths.sum(), np.uint16), np.cumsum([0, *lengths]), 1, 9, 0, "none")
    assert Rows(data, 512, 8, 0, packing=BestFit()).full > 0.99


def test_fingerprints_tell_packings_apart():
    data = toy()
    kinds = [Rows(data, 16, 4, 0), Rows(data, 16, 4, 0, packing=BestFit()), Rows(data, 16, 4, 0, BestFit("row"))]
    assert len({one.fingerprint for one in kinds}) == 3
    marked = toy(predicted=[np.ones(n) for n in LENGTHS])
    assert Rows(marked, 16, 4, 0).fingerprint != kinds[0].fingerprint
