import time
from hashlib import sha256

import numpy as np
import pytest

from jaxlm.config import Stream
from jaxlm.config.errors import Failure, UsageError
from jaxlm.data import dataset, held_out, order, training
from jaxlm.data.rows import APART, Rows

BOS, EOS, PAD = 2, 3, 0


def toy(lengths=(5, 2, 9, 3, 14, 2, 6), vocab=1000):
    """Documents whose tokens name them: document i is bos, 10 i + 4, 10 i + 5, ..., eos."""
    documents = [[BOS, *(10 * i + 4 + np.arange(n - 2)), EOS] for i, n in enumerate(lengths)]
    return dataset.in_memory(documents, bytes=sum(lengths) - 2 * len(lengths), vocab=vocab, pad=PAD)


def brute_stream(data, seed, tokens):
    """(token, document key, place) of the first tokens of the stream, one document after another."""
    stream, epoch = [], 0
    while len(stream) < tokens:
        places = range(data.documents) if seed is None else order.permutation(data.documents, seed, epoch)
        for document in places:
            ids = data.tokens[data.offsets[document] : data.offsets[document + 1]].tolist()
            stream += [(token, epoch * data.documents + int(document), place) for place, token in enumerate(ids)]
        if seed is None:
            break
        epoch += 1
    return stream


def brute_row(stream, index, length, positions):
    row = {name: [] for name in ("ids", "segments", "positions", "targets", "weights", "documents")}
    segment, start = 0, 0
    for column in range(length):
        at = index * length + column
        if at >= len(stream):
            for name in row:
                row[name].append(PAD if name in ("ids", "targets") else 0)
            continue
        token, document, place = stream[at]
        if column == 0 or place == 0:
            segment, start, first = segment + 1, column, place
        same = at + 1 < len(stream) and stream[at + 1][1] == document
        row["ids"].append(token)
        row["segments"].append(segment)
        row["positions"].append(place if positions == "document" else column - start)
        row["targets"].append(stream[at + 1][0] if same else PAD)
        row["weights"].append(float(same))
        row["documents"].append(document if positions == "document" else document + APART * first)
    return row


@pytest.mark.parametrize("positions", ["document", "row"])
@pytest.mark.parametrize("seed", [0, 7, None])
@pytest.mark.parametrize(("length", "batch"), [(8, 4), (1, 3), (41, 2), (100, 2), (5, 50)])
def test_rows_against_a_list_of_the_stream(positions, seed, length, batch):
    data = toy()
    rows = Rows(data, length, batch, seed, Stream(positions))
    stream = brute_stream(data, seed, 3 * batch * length + 1)
    for step in range(3):
        found = rows.batch(step)
        assert found["rows"].tolist() == list(range(step * batch, (step + 1) * batch))
        for i in range(batch):
            expected = brute_row(stream, step * batch + i, length, positions)
            single = rows.row(step * batch + i)
            for name, values in expected.items():
                assert found[name][i].tolist() == values, (name, step, i)
                assert getattr(single, name).tolist() == values


def test_dtypes_and_shapes():
    found = Rows(toy(), 8, 3, 0).batch(5)
    assert {name: value.shape for name, value in found.items()} == dict.fromkeys(found, (3, 8)) | {"rows": (3,)}
    assert found.pop("weights").dtype == np.float32
    assert {value.dtype for value in found.values()} == {np.dtype(np.int32)}


def test_golden_bytes_of_the_first_rows():
    """A change here changes the data of every run: count order.VERSION up."""
    found = training(toy(), Stream(), batch=4, length=16, seed=0).batch(0)
    digest = sha256(b"".join(found[name].tobytes() for name in sorted(found))).hexdigest()
    assert found["ids"][0].tolist() == FIRST_ROW
    assert digest == DIGEST


FIRST_ROW = [2, 4, 5, 6, 3, 2, 3, 2, 64, 65, 66, 67, 3, 2, 34, 3]
DIGEST = "82407de860b9f6fa24d748f43ecbca423f4725ee19a542fbaa66edf638390dab"


@pytest.mark.parametrize("seed", [3, None])
def test_slices_of_any_number_of_processes_make_the_whole_batch(seed):
    rows = Rows(toy(), 7, 12, seed)
    for step in (0, 1, 9):
        whole = rows.batch(step)
        for processes in (1, 2, 3, 4, 6, 12):
            size = 12 // processes
            parts = [rows.batch(step, slice(p * size, (p + 1) * size)) for p in range(processes)]
            for name, value in whole.items():
                np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), value)
    assert rows.batch(0, slice(4, 4))["ids"].shape == (0, 7)


@pytest.mark.parametrize(("length", "batch"), [(8, 4), (13, 1), (41, 3)])
def test_every_token_appears_once_an_epoch(length, batch):
    data = toy()
    rows = Rows(data, length, batch, 11)
    epochs = 4
    steps = -(-epochs * rows.epoch_tokens // (length * batch))
    flat = {
        name: np.concatenate([rows.batch(s)[name].ravel() for s in range(steps)]) for name in ("ids", "documents")
    }
    for epoch in range(epochs):
        part = slice(epoch * rows.epoch_tokens, (epoch + 1) * rows.epoch_tokens)
        assert sorted(flat["ids"][part]) == sorted(data.tokens)
        counts = np.bincount(flat["documents"][part] - epoch * data.documents)
        assert counts.tolist() == data.lengths.tolist()
    assert (
        flat["ids"][: rows.epoch_tokens].tolist() != flat["ids"][rows.epoch_tokens : 2 * rows.epoch_tokens].tolist()
    )


def test_a_cut_document_continues_or_restarts_its_positions():
    data = toy((20,))
    continued, restarted = (Rows(data, 8, 3, 0, Stream(positions)).batch(0) for positions in ("document", "row"))
    assert continued["positions"].tolist() == [[*range(8)], [*range(8, 16)], [16, 17, 18, 19, 0, 1, 2, 3]]
    assert restarted["positions"].tolist() == [[*range(8)], [*range(8)], [0, 1, 2, 3, 0, 1, 2, 3]]
    assert continued["segments"].tolist() == [[1] * 8, [1] * 8, [1] * 4 + [2] * 4]
    assert continued["documents"].tolist() == [[0] * 8, [0] * 8, [0] * 4 + [1] * 4]
    # Parts whose positions are the same are told apart by whatever is drawn for a document and a position.
    assert restarted["documents"].tolist() == [[0] * 8, [8 * APART] * 8, [16 * APART] * 4 + [1] * 4]
    # The last token of a row predicts the first of the next; the end predicts nothing.
    assert continued["targets"][0, 7] == continued["ids"][1, 0]
    assert continued["weights"].tolist() == [[1] * 8, [1] * 8, [1, 1, 1, 0, 1, 1, 1, 1]]


@pytest.mark.parametrize(("length", "batch"), [(8, 4), (41, 1), (6, 2), (7, 3), (1000, 2)])
def test_held_out_tokens_are_each_predicted_exactly_once(length, batch):
    data = toy()
    rows = held_out(data, Stream(), batch=batch, length=length)
    batches = [rows.batch(step) for step in range(rows.steps)]
    targets = np.concatenate([b["targets"][b["weights"] == 1] for b in batches])
    expected = [
        token
        for i in range(data.documents)
        for token in data.tokens[data.offsets[i] + 1 : data.offsets[i + 1]].tolist()
    ]
    assert targets.tolist() == expected
    assert all((b["segments"] > 0).any() for b in batches)
    # One step more is nothing but padding.
    after = rows.batch(rows.steps)
    for name in ("ids", "segments", "positions", "targets", "weights", "documents"):
        assert not after[name].any()


def test_bits_per_byte_of_a_uniform_model():
    """Each byte of text costs log2(260) bits, and so does each end of a document."""
    from jaxlm.tokenizers import ByteTokenizer

    texts, tokenizer = ["hello", "wörld"], ByteTokenizer()
    documents = [[tokenizer.bos, *tokenizer.encode(text), tokenizer.eos] for text in texts]
    data = dataset.in_memory(documents, bytes=11, vocab=260, pad=0)
    rows = held_out(data, Stream(), batch=2, length=4)
    nats = sum(rows.batch(step)["weights"].sum() * np.log(260) for step in range(rows.steps))
    np.testing.assert_allclose(nats / np.log(2) / data.bytes, np.log2(260) * (11 + 2) / 11, rtol=1e-6)


def test_wrong_uses_are_refused():
    with pytest.raises(Failure, match="empty"):
        Rows(dataset.in_memory([], bytes=0, vocab=260, pad=0), 8, 4, 0)
    with pytest.raises(UsageError, match="length"):
        Rows(toy(), 0, 4, 0)
    with pytest.raises(UsageError, match="batch"):
        Rows(toy(), 8, 0, 0)
    with pytest.raises(ValueError, match="stride"):
        Rows(toy(), 8, 4, 0).batch(0, slice(0, 4, 2))
    with pytest.raises(ValueError, match="step"):
        Rows(toy(), 8, 4, 0).batch(-1)


def test_fingerprint_changes_with_all_that_changes_batches():
    data = toy()
    base = Rows(data, 8, 4, 0)
    others = [Rows(data, 9, 4, 0), Rows(data, 8, 5, 0), Rows(data, 8, 4, 1), Rows(data, 8, 4, 0, Stream("row"))]
    others.append(Rows(toy((5, 2)), 8, 4, 0))
    assert Rows(toy(), 8, 4, 0).fingerprint == base.fingerprint
    assert len({rows.fingerprint for rows in [base, *others]}) == 6


def test_a_late_step_of_a_large_corpus_needs_no_earlier_one():
    lengths = np.random.default_rng(0).integers(2, 50, 20_000)
    data = dataset.Dataset(np.arange(lengths.sum(), dtype=np.int32), np.cumsum([0, *lengths]), 1, 2**30, 0, "none")
    rows = Rows(data, 128, 16, 1)
    step = 10 * rows.steps + 5
    epoch, start = divmod(step * 16 * 128, rows.epoch_tokens)
    stream = np.concatenate(
        [np.arange(data.offsets[i], data.offsets[i + 1]) for i in order.permutation(20_000, 1, epoch)]
    )
    assert rows.batch(step)["ids"].ravel().tolist() == stream[start : start + 16 * 128].tolist()


def test_batches_come_at_a_million_tokens_a_second():
    lengths = np.random.default_rng(0).integers(2, 2000, 2000)
    tokens = np.zeros(lengths.sum(), np.uint16)
    rows = Rows(dataset.Dataset(tokens, np.cumsum([0, *lengths]), 1, 4096, 0, "none"), 256, 16, 0)
    rows.batch(0)
    start = time.perf_counter()
    for step in range(1, 51):
        rows.batch(step)
    assert 50 * 256 * 16 / (time.perf_counter() - start) > 1e6
