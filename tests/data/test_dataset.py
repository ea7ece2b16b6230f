import json
import os

import numpy as np
import pytest

from jaxlm.config.errors import Failure
from jaxlm.data import dataset
from jaxlm.tokenizers import ByteTokenizer

TEXTS = ["hello", "wörld 日本", "", "x" * 1000]


@pytest.fixture
def written(tmp_path):
    dataset.write(dataset.texts(iter(TEXTS), ByteTokenizer(), batch=3), ByteTokenizer(), tmp_path / "data")
    return tmp_path / "data"


def test_documents_come_back_between_bos_and_eos(written):
    data, tokenizer = dataset.load(written), ByteTokenizer()
    assert data.documents == len(TEXTS)
    assert data.bytes == sum(len(text.encode()) for text in TEXTS)
    assert data.tokens.dtype == np.uint16
    for i, text in enumerate(TEXTS):
        ids = data.tokens[data.offsets[i] : data.offsets[i + 1]].tolist()
        assert (ids[0], ids[-1]) == (tokenizer.bos, tokenizer.eos)
        assert tokenizer.decode(ids[1:-1]) == text
        assert tokenizer.bos not in ids[1:]
    assert data.lengths.tolist() == data.lengths_of(np.arange(4)).tolist() == [7, 15, 2, 1002]


def test_memory_and_disk_have_one_fingerprint(written):
    data = dataset.load(written)
    documents = [data.tokens[a:b] for a, b in zip(data.offsets, data.offsets[1:])]
    memory = dataset.in_memory(documents, bytes=data.bytes, vocab=260, pad=0)
    assert memory.fingerprint == data.fingerprint
    assert dataset.in_memory(documents[::-1], bytes=data.bytes, vocab=260, pad=0).fingerprint != data.fingerprint


def test_large_vocabularies_need_wider_tokens():
    data = dataset.in_memory([[1, 2**16, 70_000]], bytes=1, vocab=70_001, pad=0)
    assert data.tokens.tolist() == [1, 2**16, 70_000]


def test_an_empty_dataset_can_be_written(tmp_path):
    dataset.write([], ByteTokenizer(), tmp_path / "none")
    assert dataset.load(tmp_path / "none").documents == 0


def test_what_is_predicted_comes_back(tmp_path):
    marks = [np.array([False, True, True]), np.array([False, False, True, True])]
    documents = [dataset.Tokenized(np.arange(len(one), dtype=np.int32), one, 2) for one in marks]
    dataset.write(documents, ByteTokenizer(), tmp_path / "data")
    found = dataset.load(tmp_path / "data")
    assert found.predicted.tolist() == [0, 1, 1, 0, 0, 1, 1]
    assert found.bytes == 4
    arrays = [one.ids for one in documents]
    memory = dataset.in_memory(arrays, bytes=4, vocab=260, pad=0, predicted=marks)
    assert memory.fingerprint == found.fingerprint
    (tmp_path / "data/predicted.bin").write_bytes(b"1")
    with pytest.raises(Failure, match=r"predicted.bin has 1 bytes, not 7"):
        dataset.load(tmp_path / "data")
    mixed = [documents[0], documents[1]._replace(predicted=None)]
    with pytest.raises(ValueError, match="some documents say what is predicted"):
        dataset.write(mixed, ByteTokenizer(), tmp_path / "mixed")
    assert os.listdir(tmp_path) == ["data"]


@pytest.mark.parametrize("name", ["tokens.bin", "offsets.bin", "manifest.json"])
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_damaged_files_are_a_failure_that_names_the_directory(written, name, damage):
    path = written / name
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-1] if name != "manifest.json" else b'{"format"')
    else:
        path.unlink()
    with pytest.raises(Failure, match=r"data.*damaged"):
        dataset.load(written)


def test_another_format_is_refused(written):
    manifest = json.loads((written / "manifest.json").read_text())
    (written / "manifest.json").write_text(json.dumps(manifest | {"format": 99}))
    with pytest.raises(Failure, match="format 99"):
        dataset.load(written)


def test_nothing_is_left_of_a_writer_that_dies(tmp_path):
    def texts():
        yield "fine"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dataset.write(dataset.texts(texts(), ByteTokenizer(), batch=1), ByteTokenizer(), tmp_path / "data")
    assert os.listdir(tmp_path) == []


def test_the_first_of_two_writers_wins(tmp_path):
    with dataset.atomic(tmp_path / "data") as scratch:
        (scratch / "file").write_text("second")
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "file").write_text("first")
    assert (tmp_path / "data" / "file").read_text() == "first"
    assert os.listdir(tmp_path) == ["data"]


def test_a_place_that_cannot_be_written_is_a_failure(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(Failure, match=r"cannot write .*file.*data"):
        dataset.write(dataset.texts(TEXTS, ByteTokenizer()), ByteTokenizer(), tmp_path / "file" / "data")


def test_a_full_disk_is_a_failure(tmp_path):
    def write():
        with dataset.atomic(tmp_path / "data"):
            raise OSError(28, "No space left on device")

    with pytest.raises(Failure, match="No space left"):
        write()
    assert os.listdir(tmp_path) == []


def test_once_makes_once(tmp_path):
    made = []

    def make(scratch):
        made.append(scratch)
        (scratch / "file").write_text("x")

    assert dataset.once(tmp_path / "a" / "b", make) == dataset.once(tmp_path / "a" / "b", make)
    assert len(made) == 1
    assert made[0] != tmp_path / "a" / "b"
