"""`jaxlm eval` as it is met: what is wrong is said before a model is loaded, and results are files."""

import json
import sys

import pytest

import jaxlm.evaluate
from jaxlm import config
from jaxlm.cli import main
from jaxlm.cli.eval import parse
from jaxlm.config.errors import UsageError
from jaxlm.interop import exchange
from tests.tiny import random_model
from tests.tokenizers import trained

TASKS = """
from jaxlm.config import Choices, DrawnShots, LastWord, Records, Task

ROWS = Records("rows.jsonl", source="example.org")


def tasks() -> tuple[Task, ...]:
    last = LastWord("last", ROWS, text="{q}")
    return (Choices("words", ROWS, "{q}\\n", choices=("yes", "no"), answer="{a}", shots=DrawnShots(ROWS, 2)), last)
"""
BLOCK = config.Block(config.Attention(heads=2, kv_heads=1, head=8), config.Gated(24))
KIND = config.Decoder(vocab=460, embed=16, layers=1, block=BLOCK)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A directory with data, a file of tasks and a model of Hugging Face's files."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAXLM_DATA", str(tmp_path / "data"))
    (tmp_path / "data").mkdir()
    rows = [{"q": f"the quick fox {i}", "a": i % 2} for i in range(9)]
    (tmp_path / "data/rows.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    (tmp_path / "mine.py").write_text(TASKS)
    files = {one.name: one.read_bytes() for one in trained.write("byte_bpe", tmp_path / "files").iterdir()}
    exchange.save(KIND, random_model(KIND), tmp_path / "small", length=64, files=files)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "expected a model and what to ask it"),
        (["small"], "expected a model and what to ask it"),
        (["small", "none.py"], "none.py"),
        (["small", "none.txt"], "there is no none.txt"),
        (["small", "mine.py", "--limit", "many"], "--limit many: expected a whole number"),
        (["small", "mine.py", "--limmit", "3"], "nearest:\n  --limit"),
        (["small", "mine.py", "--normalizations", "char"], "one of none, token, character, byte, pmi"),
        (["small", "mine.py", "mine.py"], "several tasks are named words, in mine.py: "),
        (["small", "mine.py", "other.py"], "several tasks are named words, in mine.py and other.py: "),
        (["small", "mine.py", "--name", "one"], "several tasks are named one, in mine.py: "),
        (["small", "mine.py", "shot:zero_shot"], "shot is no field with alternatives; nearest:"),
        (["small", "--harness", "x.yaml", "y.yaml"], "several tasks are named same, in x.yaml and y.yaml: "),
        (["small", "mine.py", "--harness", "x.yaml"], "one command for each kind"),
        (["small", "--harness"], "--harness has no value"),
        (["small", "--harness", "x.yaml"], "there is no x.yaml"),
        (
            ["small", "mine.py", "--data", "elsewhere"],
            "words: there is no elsewhere/rows.jsonl; it can be got from ex",
        ),
        (["small", "mine.py", "--data.path", "rows.csv"], "words: there is no "),
        (["none", "mine.py"], "none does not exist"),
        (["small", "mine.py", "--begin", "<s>"], "special tokens are <|begin_of_text|>, "),
    ],
)
def test_what_is_wrong_with_a_request(place, capsys, words, said):
    if "--harness" in words and "x.yaml" in words:
        pytest.importorskip("lm_eval", reason="lm_eval is not installed")
    if "y.yaml" in words:
        files = "{dataset_path: json, dataset_kwargs: {data_files: rows.jsonl}, task: same}"
        (place / "x.yaml").write_text(files)
        (place / "y.yaml").write_text(files)
    if "other.py" in words:
        (place / "other.py").write_text(TASKS)
    if "--normalizations" in words:
        source = TASKS.replace(", last)", ",)")
        (place / "mine.py").write_text(source)
    assert main(["eval", *words]) == 2
    assert said in capsys.readouterr().err
    # All but what is wrong with the model itself is found before one is imported.
    assert (place / "runs").exists() == ("--begin" in words)


def test_changes_reach_every_task_that_has_them(place):
    request = parse(["small", "mine.py", "--limit", "4", "--seed", "7"])
    words, last = request.tasks
    assert (words.data.limit, words.data.seed, words.shots.seed) == (4, 7, 7)
    assert (last.data.limit, last.data.seed) == (4, 7)
    (place / "mine.py").write_text(TASKS.replace(", last)", ",)"))
    for words in (["shots:zero_shot", "--limit", "4"], ["--limit", "4", "shots:zero_shot"]):
        (words,) = parse(["small", "mine.py", *words]).tasks
        assert words.shots == config.ZeroShot()
    (place / "mine.py").write_text(TASKS)
    with pytest.raises(UsageError, match=r"unknown field --shots.count"):
        parse(["small", "mine.py", "--shots.count", "0"])


def test_results_are_a_table_and_files(place, capsys):
    assert main(["eval", "small", "mine.py", "--limit", "4"]) == 0
    out = capsys.readouterr().out
    assert "task   metric" in out
    (run,) = (place / "runs").iterdir()
    found = {one.stem: json.loads(one.read_text()) for one in (run / "evaluations").iterdir()}
    assert set(found) == {"words", "last"}
    words = found["words"]
    assert words["task"]["class"] == "Choices"
    assert [one["name"] for one in words["metrics"]] == ["accuracy", "accuracy_character"]
    assert all(one["low"] <= one["value"] <= one["high"] and one["n"] == 4 for one in words["metrics"])
    assert len(words["items"]) == 4
    assert len({one["hash"] for one in words["items"]}) == 4
    assert words["run"] == f"runs/{run.name}"
    right = [one["chosen"]["none"] == one["right"] for one in words["items"]]
    assert words["metrics"][0]["value"] == sum(right) / 4
    # Again, with its run and elsewhere: the same numbers.
    assert main(["eval", f"runs/{run.name}", "mine.py", "--limit", "4", "--out", "there"]) == 0
    again = json.loads((place / "there/words.json").read_text())
    assert again["items"] == words["items"]
    assert again["hash"] == words["hash"]
    # A text by itself.
    (place / "book.txt").write_text("the quick brown fox jumps over the lazy dog " * 12)
    assert main(["eval", f"runs/{run.name}", "book.txt", "--window", "16"]) == 0
    assert "\nbook: one text, intervals draw its" in capsys.readouterr().out
    assert main(["eval", f"runs/{run.name}", "book.txt", "--window", "65"]) == 2
    assert "window is 65: the model reads 64 tokens" in capsys.readouterr().err


def test_results_of_a_task_asked_otherwise_stay(place, capsys):
    words = ["eval", "small", "mine.py", "--limit", "2"]
    (place / "mine.py").write_text(TASKS.replace(", last)", ",)"))
    found = place / "results"

    def forms():
        return {one.name: json.loads(one.read_text())["task"]["form"] for one in found.iterdir()}

    for form in ("cloze", "cloze", "letters"):
        assert main([*words, "--form", form, "--out", "results"]) == 0
    (kept,) = forms().keys() - {"words.json"}
    assert forms() == {"words.json": "letters", kept: "cloze"}
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"results/{kept}: what it was before")
    # Asked again as before, it is the newest, once.
    assert main([*words, "--out", "results"]) == 0
    (other,) = forms().keys() - {"words.json"}
    assert other != kept
    assert forms() == {"words.json": "cloze", other: "letters"}


def test_a_task_that_fails_hides_none_before_it(place, capsys):
    """A text of more tokens than the model reads: only the model tells."""
    source = TASKS.replace("import Choices", "import Choices, MinimalPairs").replace("LastWord(", "MinimalPairs(")
    (place / "mine.py").write_text(source.replace('text="{q}"', 'good="{q}" * 40, bad="{q}"'))
    assert main(["eval", "small", "mine.py", "--limit", "2"]) == 2
    said = capsys.readouterr()
    assert said.err.splitlines()[-1].startswith("jaxlm eval: last: a text of ")
    assert "words  accuracy  " in said.out
    (written,) = place.glob("runs/*/evaluations/*.json")
    assert said.out.splitlines()[-1] == str(written.relative_to(place))


def test_without_the_library(place, capsys, monkeypatch):
    """A missing extra is one line."""
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.delitem(sys.modules, "jaxlm.evaluate.harness", raising=False)
    monkeypatch.delattr(jaxlm.evaluate, "harness", raising=False)
    assert main(["eval", "small", "--harness", "x.yaml"]) == 2
    assert capsys.readouterr().err == "jaxlm eval: --harness needs lm_eval: pip install 'jaxlm[eval]'\n"
