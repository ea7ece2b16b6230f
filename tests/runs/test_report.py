"""The report: one page that stands alone, whatever a run holds and wherever it stopped."""

import html
import html.parser
import json
import math
import pathlib
import re
import shutil
import subprocess
import sys
import tomllib

import numpy as np
import pytest

from jaxlm.config.codec import what_hash
from jaxlm.config.errors import Failure, UsageError
from jaxlm.config.overrides import apply
from jaxlm.runs import directory, manifest
from jaxlm.runs.journal import Journal
from jaxlm.runs.report import write_report
from tests.base import experiment

ROOT = pathlib.Path(__file__).parents[2]
BASE = experiment()
BASELINES = {"unigram": 4.638, "gzip": 2.412, "xz": 2.157}
SECONDS = {"step": 243.1, "data": 6.4, "compile": 21.7, "evaluate": 14.2, "checkpoint": 3.9, "other": 8.8}
EVIL = "</script></span><img src=x onerror=\"console.log('run')\"><script>console.log('run')</script>"


def loss_at(step):
    return 2.55 + 5.8 * math.exp(-step / 60) + 1.1 * math.exp(-step / 300)


def sample(prompt, text, seed=0):
    pieces = re.findall(r"\s?\w+|\s|[^\w\s]", text)
    draws = np.random.default_rng(seed).exponential(1.9, len(pieces) + 1)
    scores = [None, *(-draws[1:]).tolist()]
    tokens = [prompt, *pieces]
    return {
        "prompt": prompt,
        "text": text,
        "tokens": tokens,
        "ids": list(range(len(tokens))),
        "log_probabilities": scores,
    }


def write_train(journal, steps, rng, start, rate=14_000.0):
    now = start
    for step in steps:
        warm = min(step / 50, 1.0)
        now += 10 * 4096 / (rate * rng.uniform(0.92, 1.04)) + 3.0 * (step % 200 == 10)
        values = {
            "loss": loss_at(step) + rng.normal(0, 0.05),
            "cross_entropy": loss_at(step),
            "z": 120.0 - 30 * warm,
            "gradient_norm": 0.4 + 2 * math.exp(-step / 40) + rng.exponential(0.05),
            "learning_rate": 3e-3 * warm * (0.55 + 0.45 * math.cos(math.pi * step / 600)),
        }
        journal.write("train", step, **values, time=now)


def write_telemetry(journal, steps, rng, names=("attention.query", "attention.out", "mlp.up"), layers=4):
    for step in steps:
        values = {}
        for i, name in enumerate(names):
            size = 0.02 * (1 + i % 5) * (1 + step / 900) * rng.uniform(0.95, 1.05, layers)
            values[f"parameter.blocks.period.0.{name}.kernel"] = size.tolist()
            values[f"update.blocks.period.0.{name}.kernel"] = (size * 3e-3 * rng.uniform(0.5, 1, layers)).tolist()
            values[f"gradient.blocks.period.0.{name}.kernel"] = (0.01 * loss_at(step) * size).tolist()
        values["tap.residual.rms"] = (np.arange(1, layers + 1) * (1 + step / 300)).tolist()
        values["parameter.embedding.kernel"] = 0.02 + step * 1e-5
        journal.write("telemetry", step, **values)


@pytest.fixture(autouse=True)
def _outside_any_repository(monkeypatch):
    monkeypatch.setattr(manifest, "git", lambda directory: None)


@pytest.fixture
def run_dir(tmp_path):
    return make_run(tmp_path / "quickstart-run")


def make_run(path):
    """A realistic finished run that was resumed once."""
    rng = np.random.default_rng(0)
    directory.release(directory.open_run(BASE, str(path)))
    with Journal(path, 1) as journal:
        write_train(journal, range(10, 330, 10), rng, 1.7e9)
        journal.write("evaluate", 200, loss=loss_at(200) + 0.06, bits_per_byte=1.62, cross_entropy=loss_at(200))
        write_telemetry(journal, range(10, 310, 10), rng)
        journal.write("event", 320, event="goodput", seconds=SECONDS)
    run = directory.open_run(BASE, str(path))
    with Journal(path, 2, resumed_from=300) as journal:
        write_train(journal, range(310, 610, 10), rng, 1.7e9 + 400)
        journal.write("evaluate", 400, loss=loss_at(400) + 0.08, bits_per_byte=1.418)
        journal.write("evaluate", 600, loss=loss_at(600) + 0.09, bits_per_byte=1.334, cross_entropy=2.71)
        write_telemetry(journal, range(310, 610, 10), rng)
        journal.write("event", 600, event="goodput", seconds=SECONDS)
    code = 'encode(self, text: str, *, errors=\'strict\'):\n    """Return the bytes of *text*.\n\n    '
    code += 'Raises ValueError if it cannot.\n    """\n    if not isinstance(text, str):\n\t\traise TypeError\n'
    samples = [
        sample("def ", code),
        sample("The ", "module provides a naïve interface\u202e to the — “operating” system.\x00 See 漢字.", 1),
        sample("import ", EVIL, 2),
    ]
    (path / "samples.json").write_text(json.dumps(samples))
    documents = {"train": 1484, "held_out": 31, "too_short": 212, "duplicate": 61, "not_english": 17, "near": 0}
    data = {"documents": documents, "baselines": BASELINES, "train_tokens": 5_812_000, "held_out_bytes": 200_312}
    (path / "data.json").write_text(json.dumps(data))
    directory.record(run, devices=["cpu"] * 2, mesh={"data": 2}, lowered_step="ab" * 32)
    directory.finish(run)
    return path


def read_page(run_dir):
    path = write_report(run_dir)
    assert path.name == "report.html"
    return (run_dir / "report.html").read_bytes().decode("utf-8")


class Page(html.parser.HTMLParser):
    """Tags with their attributes, the text in them, and whether they nest."""

    VOID = frozenset({"meta", "link", "img", "br"})

    def __init__(self, source):
        super().__init__()
        self.open, self.tags, self.words, self.wrong = [], [], [], []
        self.feed(source)
        self.close()
        self.wrong += self.open
        self.text = " ".join(" ".join(self.words).split())  # of all kinds of space one

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if len(dict(attributes)) != len(attributes):
            self.wrong.append(f"{tag} repeats an attribute")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"</{tag}> closes nothing")

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.words.append(data)


def problems(source):
    """All that keeps a page from being well formed, alone and still."""
    page = Page(source)
    found = list(page.wrong)
    found += [f"<{tag}>" for tag, _ in page.tags if tag in ("script", "iframe", "object", "base", "form")]
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            if name.startswith("on"):
                found.append(f"{tag} {name}")
            if name in ("src", "href", "action", "data", "srcset") and not (value or "").startswith(("data:", "#")):
                found.append(f"{tag} {name}={value}")
    names = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    found += [f"id {one} twice" for one in {one for one in names if names.count(one) > 1}]
    found += re.findall(r"@import|url\((?!#|data:)[^)]*\)", source)
    return found


@pytest.mark.parametrize(
    "bad",
    [
        "<p><b></p></b>",
        "<img src='https://x.org/a.png'>",
        "<style>@import 'a.css'</style>",
        "<i style='background:url(//x.org/a)'></i>",
        "<p onclick='x'></p>",
        "<script></script>",
        "<p id='a'></p><p id='a'></p>",
    ],
)
def test_the_check_itself_sees_what_is_wrong(bad):
    assert problems(bad)


def test_a_whole_run(run_dir):
    source = read_page(run_dir)
    page = Page(source)
    assert not problems(source)
    assert len(source.encode()) < 500_000
    for expected in (
        "1.334 bits per byte",
        "44.7 % below gzip −9 and 38.2 % below xz −9.",
        "2.46 M",  # 600 * 16 * 256 tokens
        "9 min 56 s",  # both attempts
        "training steps 8 min 6 s 81.5 %",
        "attention.kv_heads",
        "too short",
        what_hash(BASE),
        "not english",
        "parameters",
    ):
        assert expected in page.text, expected
    assert "model ÷ it" in page.text
    assert "0.55" in page.text  # 1.334 / 2.412
    assert "0.62" in page.text  # 1.334 / 2.157
    assert "Unfinished" not in page.text
    drawings = [attributes["aria-label"] for tag, attributes in page.tags if tag == "svg"]
    assert drawings == ["Loss", "Bits per byte", "Gradient norm", "Learning rate", "Tokens per second", "z"]
    assert source == read_page(run_dir)  # nothing of the moment of writing


def test_the_package_holds_the_style_sheet():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "style.css" in settings["tool"]["setuptools"]["package-data"]["jaxlm.runs.report"]


def test_the_command_names_the_page(run_dir, capsys):
    pytest.importorskip("jaxlm.runs.ledger")
    from jaxlm.cli import report

    assert report.main([str(run_dir)]) == 0
    assert capsys.readouterr().out == f"{run_dir}/report.html\n"
    assert (run_dir / "report.html").exists()
    for words in ([], ["a", "b"], ["--open"]):
        with pytest.raises(UsageError, match="jaxlm report RUN"):
            report.main(words)


# --- samples -------------------------------------------------------------------------------------------------


def test_what_a_sample_contains_is_inert(run_dir):
    every = [{**sample(EVIL, EVIL), "tokens": [EVIL, EVIL], "log_probabilities": [None, -1.0]}, {"text": EVIL}]
    (run_dir / "samples.json").write_text(json.dumps(every))
    data = {"documents": {EVIL: 5}, "baselines": {EVIL: 2.0}, EVIL: 7}
    (run_dir / "data.json").write_text(json.dumps(data))
    with Journal(run_dir, 2) as journal:
        journal.write("train", 610, **{EVIL: 1.0, "$\\frac$": 2.0})
        journal.write("train", 620, **{EVIL: 2.0, "$\\frac$": 1.0})
        journal.write("telemetry", 610, **{f"tap.{EVIL}": [1.0, 2.0]})
    shown = json.loads((run_dir / "manifest.json").read_text())
    shown |= {"host": EVIL, "git": {EVIL: {"commit": EVIL, "diff": EVIL}}, "packages": {EVIL: EVIL}, EVIL: EVIL}
    for name in ("manifest.json", "manifests/0002.json"):
        (run_dir / name).write_text(json.dumps(shown))
    source = read_page(run_dir)
    assert not problems(source)
    assert "<img src=x" not in source
    assert source.count("&lt;img src=x onerror=") > 10
    assert "default-src 'none'" in source


def token_spans(source):
    """(classes, tooltip, text) of each token."""
    found = re.findall(r'<span(?: class="([^"]*)")? title="([^"]*)">(.*?)</span>', source, re.DOTALL)
    return [
        (classes.split(), html.unescape(tip), html.unescape(re.sub("<[^>]*>", "", body)))
        for classes, tip, body in found
    ]


def test_tokens_are_shaded_by_surprise(run_dir):
    one = {
        "prompt": "a b",
        "text": "\n\tx y\x07\ud800",
        "tokens": ["a", " b", "\n", "\t", "x", " y", "\x07", "\ud800"],
        "log_probabilities": [None, -0.01, math.log(0.25), -50.0, math.nan, 0.0, -0.1, "NaN"],
    }
    (run_dir / "samples.json").write_text(json.dumps([one]))
    spans = token_spans(read_page(run_dir))
    assert "".join(body for *_, body in spans) == "a b\n\tx y[U+0007][U+D800]"
    assert [classes for classes, *_ in spans] == [["prompt"], ["prompt"], ["s2"], ["s7"], [], [], [], []]
    tips = [tip for _, tip, _ in spans]
    assert tips[1].startswith("‘ b’ 99.0")
    assert tips[2] == "‘↵’ 25.0\u202f%, 2.0 bits"
    assert tips[3].startswith("‘⇥’ 1.9\u202f×\u202f10^−20\u202f%")
    assert tips[0] == "‘a’ no probability recorded"
    assert tips[4] == "‘x’ no probability recorded"


def test_pieces_of_sentencepiece_read_as_text(run_dir):
    one = {
        "prompt": "The cat",
        "text": " sat\nup",
        "tokens": ["▁The", "▁cat", "▁sat", "<0x0A>", "up"],
        "log_probabilities": [None] * 5,
    }
    (run_dir / "samples.json").write_text(json.dumps([one]))
    spans = token_spans(read_page(run_dir))
    assert "".join(body for *_, body in spans) == " The cat sat\nup"
    assert [classes == ["prompt"] for classes, *_ in spans] == [True, True, False, False, False]
    # where the text itself has the character, it is no space
    (run_dir / "samples.json").write_text(json.dumps([{"prompt": "a", "text": "▁b", "tokens": ["a", "▁b"]}]))
    assert [body for *_, body in token_spans(read_page(run_dir))] == ["a", "▁b"]


# --- runs that are not whole ---------------------------------------------------------------------------------


def test_an_empty_run(tmp_path):
    run = directory.open_run(BASE, str(tmp_path / "run"))
    source = read_page(tmp_path / "run")
    assert not problems(source)
    words = Page(source).text
    assert "No step has been recorded yet, of 600. It was running when this page was written." in words
    assert "nothing measured yet" in words
    directory.release(run)
    assert "It has stopped." in read_page(tmp_path / "run")


def test_a_run_that_stopped_before_its_first_evaluation(tmp_path):
    directory.release(directory.open_run(BASE, str(tmp_path / "run")))
    with Journal(tmp_path / "run", 1) as journal:
        write_train(journal, range(10, 60, 10), np.random.default_rng(0), 0.0)
    source = read_page(tmp_path / "run")
    assert not problems(source)
    words = Page(source).text
    assert "Unfinished: 50 of 600 steps. It has stopped." in words
    assert "training loss Nothing has been measured on held-out text." in words
    assert "50 of 600" in words


def test_complete_before_the_mark_done_is_written(tmp_path):
    run = directory.open_run(apply(BASE, ["--train.steps", "20"]), str(tmp_path / "run"))
    with Journal(tmp_path / "run", 1) as journal:
        journal.write("train", 20, loss=2.0)
    assert directory.status(tmp_path / "run") == "running"
    assert "Unfinished" not in read_page(tmp_path / "run")
    directory.release(run)


def test_no_run_and_damaged_files(run_dir, tmp_path):
    with pytest.raises(UsageError, match="is no run"):
        write_report(tmp_path / "nowhere")
    (run_dir / "samples.json").write_text('[{"prompt": ')
    with pytest.raises(Failure, match=r"samples\.json is damaged"):
        write_report(run_dir)
    (run_dir / "samples.json").write_text('{"prompt": 1}')
    with pytest.raises(Failure, match=r"samples\.json is damaged: expected a list"):
        write_report(run_dir)


def test_a_model_worse_than_the_compressors(run_dir):
    with Journal(run_dir, 2) as journal:
        journal.write("evaluate", 610, bits_per_byte=2.5, loss=4.0)
    words = Page(read_page(run_dir)).text
    assert "3.6 % above gzip −9 and 15.9 % above xz −9. Best was 1.334, after step 600." in words


def test_answers_are_not_called_text(run_dir):
    assert "200 kB of held-out text" in Page(read_page(run_dir)).text
    told = json.loads((run_dir / "config.json").read_text())
    told["experiment"]["data"] = {"class": "Conversations", "paths": ["talk.jsonl"]}
    (run_dir / "config.json").write_text(json.dumps(told))
    words = Page(read_page(run_dir)).text
    assert "200 kB of held-out answers" in words
    assert "The compressors see the answers alone, the model their prompts too" in words


def test_labels_stand_beside_the_commonest(run_dir):
    with Journal(run_dir, 2) as journal:
        journal.write("evaluate", 610, accuracy=0.755, loss=0.5)
    told = json.loads((run_dir / "config.json").read_text())
    told["experiment"]["objective"] = {"class": "Classification"}
    (run_dir / "config.json").write_text(json.dumps(told))
    found = json.loads((run_dir / "data.json").read_text())
    (run_dir / "data.json").write_text(json.dumps(found | {"held_out_labels": {"0": 30, "2": 50}}))
    words = Page(read_page(run_dir)).text
    assert "75.5 % of held-out texts have the label found" in words
    assert "Of 80 texts with 2 labels; the commonest has 62.5 % of them." in words
    assert "Loss nats per text" in words
    assert "gzip" not in words, "compressors find no labels"


def test_values_that_are_not_finite_or_missing(tmp_path):
    directory.release(directory.open_run(BASE, str(tmp_path / "run")))
    with Journal(tmp_path / "run", 1) as journal:
        for step, loss in enumerate((3.0, math.nan, math.inf, -math.inf, None, 2.0), 1):
            journal.write("train", 10 * step, loss=loss, gradient_norm=math.nan, learning_rate=0.0)
            journal.write("telemetry", 10 * step, **{"tap.a": [1.0, loss], "update.b": loss, "tap.c": [[1]]})
        journal.write("train", 70)
        journal.write("evaluate", 60, loss=math.nan, bits_per_byte=math.inf)
        journal.write("event", 60, event="goodput", seconds={"step": math.nan, "data": 0.0})
    one = {"prompt": None, "text": 3, "tokens": [None, 1], "log_probabilities": None}
    (tmp_path / "run" / "samples.json").write_text(json.dumps([one, {}, 7]))
    data = {"documents": {"train": None, "x": -1}, "baselines": {"gzip": 0.0, "xz": math.nan, "y": "z"}}
    (tmp_path / "run" / "data.json").write_text(json.dumps(data))
    source = read_page(tmp_path / "run")
    assert not problems(source)
    words = Page(source).text
    assert "Loss nats per token training 5 values not finite" in words
    assert "2 training loss" in words  # the last finite one
    assert not re.search(r"\bnan\b|\binf\b", re.sub("<style.*?</style>", "", source, flags=re.DOTALL))


def test_all_losses_are_lost(tmp_path):
    directory.release(directory.open_run(BASE, str(tmp_path / "run")))
    with Journal(tmp_path / "run", 1) as journal:
        for step in range(1, 40):
            journal.write("train", step, loss=math.nan, gradient_norm=math.inf)
    source = read_page(tmp_path / "run")
    assert not problems(source)
    assert "39 values not finite" in Page(source).text


# --- size, extras, browsers ----------------------------------------------------------------------------------


def test_the_worst_run_stays_small(tmp_path):
    path, rng = tmp_path / "run", np.random.default_rng(0)
    run = directory.open_run(apply(BASE, ["--train.steps", "200000"]), str(path))
    names = [f"module{i}.with_a_rather_long_name.of_its_own" for i in range(66)]
    with Journal(path, 1) as journal:
        noise = rng.lognormal(size=(20_000, 8))
        for i, values in enumerate(noise.tolist()):
            extra = {f"metric_{j}": value for j, value in enumerate(values)}
            journal.write(
                "train", 10 * i, loss=values[0], gradient_norm=values[1], learning_rate=values[2], **extra
            )
            if i % 4 == 0:
                journal.write("evaluate", 10 * i, loss=values[3], bits_per_byte=values[4])
        write_telemetry(journal, range(0, 200_000, 1650), rng, names, layers=24)
    tokens = ["<&\x00>" * 4] * 400
    samples = [{"prompt": "p", "text": "", "tokens": tokens, "log_probabilities": [-9.0] * 400}] * 100
    (path / "samples.json").write_text(json.dumps(samples))
    documents = {f"reason {i} {'<' * 200}": 1 + i for i in range(1000)}
    (path / "data.json").write_text(json.dumps({"documents": documents, "baselines": BASELINES}))
    directory.record(
        run,
        git={"directory": {"commit": "0" * 40, "diff": "\x00&<" * 90_000}},
        packages={f"package{i}": "<" * 100 for i in range(5000)},
        argv=["<" * 1000] * 1000,
        **{f"slot{i}": "&" * 3000 for i in range(500)},
    )
    directory.release(run)
    source = read_page(path)
    assert len(source.encode()) < 2_000_000
    assert not problems(source)
    assert "more samples in samples.json" in source
    assert "more names in the journal" in source
    assert "more characters in manifest.json" in source
    assert sum(tag == "svg" for tag, _ in Page(source).tags) == 9


def test_without_matplotlib_the_page_says_so(run_dir, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    source = read_page(run_dir)
    assert not problems(source)
    assert "<svg" not in source
    assert "pip install 'jaxlm[report]'" in Page(source).text
    assert "1.334" in source


def console(page, tmp_path):
    """What a headless Chromium says of a page: its console's messages, errors and refusals."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("needs Chromium on PATH")
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    flags += " --disable-component-update --disable-sync --enable-logging=stderr --v=0 --window-size=1200,3000"
    flags += f" --user-data-dir={tmp_path / 'browser'} --screenshot={tmp_path / 'page.png'} {page.as_uri()}"
    done = subprocess.run([browser, *flags.split()], capture_output=True, text=True, timeout=120)
    assert (tmp_path / "page.png").exists(), done.stderr
    return [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def test_a_browser_has_nothing_to_say(run_dir, tmp_path):
    read_page(run_dir)
    assert console(run_dir / "report.html", tmp_path) == []
    # a page that does run what is in it would be heard
    (tmp_path / "bad.html").write_text(f"<!DOCTYPE html><p>{EVIL}</p>")
    assert len(console(tmp_path / "bad.html", tmp_path)) >= 2
