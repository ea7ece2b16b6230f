import subprocess
import sys

import pytest

from jaxlm.config.errors import UsageError
from jaxlm.corpus import Document
from jaxlm.data import builder

TRAIN = [Document(f"d{i}", f"text {i} é\n" * (i % 7)) for i in range(600)]
HELD = [Document("h", "held out")]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return builder.write({"train": TRAIN, "held_out": HELD}, tmp_path_factory.mktemp("tfds"))


def test_documents_come_back_in_order(path):
    found = builder.open_dataset(str(path))
    assert list(builder.texts(found, "train")) == [document.text for document in TRAIN]
    assert list(builder.texts(found, "train", "name")) == [document.name for document in TRAIN]
    assert list(builder.texts(found, "held_out")) == ["held out"]
    assert list(builder.texts(found, "train", "name", every=250)) == ["d0", "d250", "d500"]
    assert found.info.file_format.value == "array_record"


def test_samples_spread_over_the_split(path):
    found = builder.open_dataset(str(path))
    assert builder.sample(found, "train", "name", 10**9) == [document.name for document in TRAIN]
    few = builder.sample(found, "train", "name", found.info.splits["train"].num_bytes // 10)
    assert few == [document.name for document in TRAIN[::11]] or few == [document.name for document in TRAIN[::10]]


def test_writing_again_changes_nothing(path, capfd):
    before = {file: file.stat().st_mtime_ns for file in path.iterdir()}
    assert builder.write({"train": HELD}, path.parent.parent) == path
    assert {file: file.stat().st_mtime_ns for file in path.iterdir()} == before
    assert capfd.readouterr().out == ""


def test_a_writer_that_dies_leaves_no_dataset(tmp_path):
    def broken():
        yield TRAIN[0]
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        builder.write({"train": broken()}, tmp_path)
    with pytest.raises(UsageError):
        builder.open_dataset(str(tmp_path / "corpus" / "1.0.0"))
    assert not list(tmp_path.glob("corpus/*/*info*"))


def test_fingerprints_follow_the_content(path, tmp_path):
    same = builder.write({"train": TRAIN, "held_out": HELD}, tmp_path / "same")
    other = builder.write({"train": TRAIN[1:], "held_out": HELD}, tmp_path / "other")
    prints = [builder.fingerprint(builder.open_dataset(str(where))) for where in (path, same, other)]
    assert prints[0] == prints[1] != prints[2]


def test_datasets_are_found_by_name(path, monkeypatch):
    import tensorflow_datasets as tfds

    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(path.parent.parent))
    found = builder.open_dataset("corpus:1.0.0")
    assert len(list(builder.texts(found, "train"))) == len(TRAIN)


@pytest.mark.parametrize("name", ["no_such_dataset", "no_such:1.0.0", ""])
def test_unknown_names_are_usage_errors(name):
    with pytest.raises(UsageError, match=r"data\.name"):
        builder.open_dataset(name)


def test_unknown_splits_and_fields_list_the_known(path):
    found = builder.open_dataset(str(path))
    with pytest.raises(UsageError, match="'test'; it has held_out, train"):
        list(builder.texts(found, "test"))
    with pytest.raises(UsageError, match="'body'; it has name, text"):
        list(builder.texts(found, "train", "body"))


def test_neither_tensorflow_nor_jax_is_imported(path):
    code = (
        "import sys, jaxlm.data\n"
        "from jaxlm.data import builder\n"
        "assert 'tensorflow_datasets' not in sys.modules and 'sentencepiece' not in sys.modules\n"
        f"assert len(list(builder.texts(builder.open_dataset({str(path)!r}), 'train'))) == {len(TRAIN)}\n"
        "assert 'tensorflow' not in sys.modules and 'jax' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
