"""The report: one page that stands alone, whatever a run holds and wherever it stopped."""

import html.parser
import json
import math
import re

import numpy as np
import pytest

from experiments.quickstart import experiment
from jaxlm.config.codec import what_hash
from jaxlm.runs import directory
from jaxlm.runs.journal import Journal
from jaxlm.runs.report import write_report

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
        self.text = " ".join(" ".join(self.words).split())

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
        "44.7\u202f% below gzip −9 and 38.2\u202f% below xz −9.",
        "2.46\u202fM",  # 600 * 16 * 256 tokens
        "9\u202fmin 56\u202fs",  # both attempts
        "training steps 8\u202fmin 6\u202fs 81.5\u202f%",
        "attention.kv_heads",
        "too short",
        what_hash(BASE),
        "not english",
        "parameters",
    ):
        assert expected.replace("\u202f", " ") in page.text.replace("\u202f", " "), expected
    assert "model ÷ it" in page.text
    assert "0.55" in page.text  # 1.334 / 2.412
    assert "0.62" in page.text  # 1.334 / 2.157
    assert "Unfinished" not in page.text
    drawings = [attributes["aria-label"] for tag, attributes in page.tags if tag == "svg"]
    assert drawings == ["Loss", "Bits per byte", "Gradient norm", "Learning rate", "Tokens per second", "z"]
    assert source == read_page(run_dir)  # nothing of the moment of writing
