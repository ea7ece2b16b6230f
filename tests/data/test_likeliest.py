"""What a teacher said of a dataset, on disk: whole, resumed, and damaged."""

import numpy as np
import pytest

from jaxlm.config.errors import Failure
from jaxlm.data import likeliest
from jaxlm.data.likeliest import Said, done, load, write

SIZE, COUNT = 40, 3
RNG = np.random.default_rng(0)
LOGS = -np.sort(RNG.random((SIZE, COUNT)), axis=1).astype(np.float32)
TOKENS = RNG.integers(0, 70_000, (SIZE, COUNT)).astype(np.int32)
STEPS = np.split(RNG.permutation(SIZE), 8)
"""Places in any order, as rows have them."""


def said(first=0, last=len(STEPS)):
    for step, places in enumerate(STEPS):
        if first <= step:
            if step == last:
                raise KeyboardInterrupt
            yield Said(places, LOGS[places], TOKENS[places])


def test_what_was_written_is_read(tmp_path):
    assert done(tmp_path / "a") == 0
    write(tmp_path / "a", said(), 0, 2, 70_000, {"teacher": "t"})
    assert done(tmp_path / "a") is None
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    found = load(tmp_path / "a", SIZE, COUNT, "print")
    np.testing.assert_array_equal(found.logs, LOGS)
    np.testing.assert_array_equal(found.tokens, TOKENS)
    assert (found.tokens.dtype, found.fingerprint) == (np.int32, "print")


def test_stopped_anywhere_it_goes_on(tmp_path, monkeypatch):
    """What came after the last that is known to be on disk is written again."""
    monkeypatch.setattr(likeliest, "EVERY", -1.0)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "a", said(last=3), 0, 2, 70_000, {})
    assert not (tmp_path / "a").exists()
    assert done(tmp_path / "a") == 6
    monkeypatch.setattr(likeliest, "EVERY", 1e9)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "a", said(3, last=6), 6, 2, 70_000, {})
    assert done(tmp_path / "a") == 6
    write(tmp_path / "a", said(3), 6, 2, 70_000, {})
    np.testing.assert_array_equal(load(tmp_path / "a", SIZE, COUNT, "").logs, LOGS)


def test_two_who_write_the_same(tmp_path):
    """The second finds the first's and leaves it."""

    def late():
        yield from said()
        write(tmp_path / "a", said(), 0, 2, 70_000, {})

    write(tmp_path / "a", late(), 0, 2, 70_000, {})
    np.testing.assert_array_equal(load(tmp_path / "a", SIZE, COUNT, "").tokens, TOKENS)


def test_what_cannot_be_written_or_read(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Failure, match="cannot write"):
        write(tmp_path / "file" / "a", said(), 0, 2, 70_000, {})
    write(tmp_path / "a", said(), 0, 2, 70_000, {})
    with pytest.raises(Failure, match=r"damaged \(logs.bin has 480 bytes, not 640\): remove it"):
        load(tmp_path / "a", SIZE, COUNT + 1, "")
    (tmp_path / "a" / "tokens.bin").unlink()
    with pytest.raises(Failure, match="damaged"):
        load(tmp_path / "a", SIZE, COUNT, "")
