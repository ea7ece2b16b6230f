import json
import sys
from pathlib import Path

import pytest

from jaxlm.config import PythonText, TextFiles
from jaxlm.config.errors import Failure, UsageError
from jaxlm.corpus import Raw, documents, fingerprint
from jaxlm.corpus.documents import docstrings


@pytest.fixture(scope="module")
def python():
    return list(documents(PythonText()))


def test_python_text_is_the_same_every_time(python):
    assert list(documents(PythonText())) == python
    names = [document.name for document in python]
    assert len(set(names)) == len(names)
    assert len(fingerprint(PythonText())) == 64


def test_hooks_of_a_process_are_no_part_of_python(monkeypatch):
    before = docstrings(sys)
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: None)
    monkeypatch.setattr(sys, "excepthook", lambda *error: None)
    assert docstrings(sys) == before


def test_python_text_holds_topics_docstrings_and_sources(python):
    by_name = {document.name: document.raw.decode() for document in python}
    assert "Boolean operations" in by_name["topics/booleans"]
    assert "Return the length of" in by_name["builtin/builtins"] or "number of items" in by_name["builtin/builtins"]
    assert by_name["library/json/decoder.py"] == Path(json.decoder.__file__).read_text()
    assert 4_000_000 < sum(len(text) for text in by_name.values()) < 20_000_000


def test_python_text_has_no_tests_tables_or_addresses(python):
    folders = {part for document in python for part in document.name.split("/")[:-1]}
    assert not folders & {"test", "tests", "site-packages", "encodings", "pydoc_data"}
    told = [document.raw for document in python if document.name.startswith("builtin/")]
    assert not any(b" at 0x" in raw for raw in told)


def test_text_files_and_globs(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "a.txt").write_text("first")
    (tmp_path / "b" / "c.jsonl").write_text('{"text": "second"}\n\n{"text": "third \\u00e9", "id": 1}\n')
    expected = [Raw("a.txt", b"first"), Raw("b/c.jsonl:1", b"second"), Raw("b/c.jsonl:3", "third é".encode())]
    source = TextFiles((f"{tmp_path}/*.txt", f"{tmp_path}/**/*.jsonl"))
    assert list(documents(source)) == expected
    # A file named twice is read once.
    assert list(documents(TextFiles((*source.paths, f"{tmp_path}/a.txt")))) == expected


def test_names_survive_a_move(tmp_path):
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
        for name in ("x.txt", "y.txt"):
            (tmp_path / folder / name).write_text(name)
    here, there = (TextFiles((f"{tmp_path}/{folder}/*.txt",)) for folder in ("here", "there"))
    assert fingerprint(here) == fingerprint(there)
    (tmp_path / "there" / "x.txt").write_text("other")
    assert fingerprint(here) != fingerprint(there)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("gone.txt", "gone.txt"),
        ("*.txt", "matches no file"),
        ("data.csv", "is no .txt or .jsonl file"),
        (".", "no file"),
    ],
)
def test_wrong_paths_are_named(tmp_path, path, message):
    (tmp_path / "data.csv").write_text("x")
    with pytest.raises(UsageError, match=message):
        list(documents(TextFiles((f"{tmp_path}/{path}",))))


def test_no_paths_is_a_usage_error():
    with pytest.raises(UsageError, match="at least one"):
        list(documents(TextFiles()))


@pytest.mark.parametrize("line", ['{"text": ', '{"txt": "a"}', '{"text": 3}', "[]"])
def test_broken_lines_are_named(tmp_path, line):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "fine"}\n' + line + "\n")
    with pytest.raises(Failure, match="line 2"):
        list(documents(TextFiles((str(path),))))


def test_unreadable_file_is_a_failure(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("x")

    def refuse(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(Failure, match=r"a\.txt.*Permission denied"):
        list(documents(TextFiles((f"{tmp_path}/a.txt",))))
