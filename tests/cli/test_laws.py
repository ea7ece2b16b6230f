"""`jaxlm laws` on tables and on run directories, and what it refuses."""

import dataclasses

import numpy as np
import pytest

from jaxlm.cli import main
from jaxlm.config.flops import flops_of, parameters
from jaxlm.config.overrides import apply
from jaxlm.runs import directory
from jaxlm.runs.journal import Journal
from jaxlm.study.laws import PUBLISHED, projection, read, simulate
from tests.base import experiment

FEW = ("--resamples", "20")


def written(path, points, *, flops=True, runs=None):
    names = ["parameters", "tokens", "loss"] + ["flops"] * flops + ["run"] * (runs is not None)
    columns = [points.parameters, points.tokens, points.losses] + [points.flops] * flops
    columns += [runs] if runs is not None else []
    rows = [",".join(str(cell) for cell in row) for row in zip(*columns, strict=True)]
    path.write_text("\n".join([",".join(names), *rows]) + "\n")
    return str(path)


@pytest.fixture
def table(tmp_path):
    return written(tmp_path / "runs.csv", simulate.noisy(simulate.isoflops(), np.random.default_rng(0)))


def said(capsys, *words):
    code = main(["laws", *words])
    out, err = capsys.readouterr()
    return code, out, err


def test_a_table_becomes_laws_optima_and_a_check(table, tmp_path, capsys):
    code, out, err = said(capsys, table, *FEW, "--approach", "projection", "--out", str(tmp_path / "laws.svg"))
    assert (code, err) == (0, "")
    found = projection.fit(read.of_table(table).points())
    laws = next(line for line in out.splitlines() if line.startswith("projection"))
    assert laws.split()[1] == f"{found.E:.4g}"
    for budget in ("3e+21", "3e+22"):  # the largest, and ten times as much
        line = next(line for line in out.splitlines() if line.strip().startswith(budget))
        assert f"{found.optimum(float(budget)).loss:.4g} (" in line
    assert "left out" in out
    drawn = (tmp_path / "laws.svg").read_text()
    assert drawn.startswith("<?xml")
    assert "training FLOPs" in drawn
    assert not any(f'{word}="http' in drawn for word in ("href", "src"))


def test_draws_without_a_law_stand_below_the_intervals(tmp_path, capsys):
    points = simulate.noisy(simulate.isoflops(budgets=simulate.BUDGETS[:4], sizes=5), np.random.default_rng(0))
    table = written(tmp_path / "runs.csv", points)
    code, out, _ = said(capsys, table, *FEW)
    assert code == 0
    laws, optima, left = out.split("\n\n")[1:4]
    assert "projection: " not in out
    lines = [line for line in laws.splitlines() if line.startswith("isoflop: ")]
    assert len(lines) == 1
    assert "draws had no frontier; intervals are of the others" in lines[0]
    assert "draws" not in optima
    assert "draws had no frontier" in left


def test_a_drawing_is_written_whole_or_not_at_all(table, tmp_path, capsys, monkeypatch):
    out = tmp_path / "laws.svg"
    out.write_text("as it was")
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    code, _, err = said(capsys, table, *FEW, "--approach", "projection", "--out", str(out))
    assert code == 1
    assert "No space left" in err
    assert out.read_text() == "as it was"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["laws.svg", "runs.csv"]


def test_what_the_runs_do_not_allow_is_said(tmp_path, capsys):
    table = written(tmp_path / "runs.csv", simulate.ladder(), flops=False)
    code, out, _ = said(capsys, table, *FEW)
    assert code == 0
    assert "C is 6 N D" in out
    assert "envelope: no run has several losses" in out


def test_rows_of_a_run_are_its_curve(tmp_path, capsys):
    curves = simulate.curves(sizes=8, evaluations=20)
    runs = np.repeat([f"r{i}" for i in range(8)], 20)
    together = simulate.Points(
        *(
            np.concatenate([getattr(c, name) for c in curves])
            for name in ("parameters", "tokens", "flops", "losses")
        )
    )
    table = written(tmp_path / "curves.csv", together, runs=runs)
    data = read.of_table(table)
    assert len(data.curves) == 8
    assert data.points().tokens.tolist() == [curve.tokens[-1] for curve in curves]
    code, out, _ = said(capsys, table, *FEW, "--approach", "envelope")
    assert code == 0
    assert "8 runs of 8 sizes" in out


def test_runs_are_read(tmp_path, monkeypatch, capsys):
    """Runs whose held-out losses follow a law of their own sizes and tokens."""
    monkeypatch.chdir(tmp_path)
    law = dataclasses.replace(PUBLISHED, A=20.0, B=80.0)
    for embed in (64, 128, 256):
        for steps in (100, 400, 1600):
            own = apply(experiment(), ["--model.embed", str(embed), "--train.steps", str(steps)])
            run = directory.open_run(own, f"runs/{embed}-{steps}")
            count = parameters(own.model)["total"]
            with Journal(run.path, 1) as journal:
                for step in (steps // 2, steps):
                    journal.write("evaluate", step, loss=float(law.loss(count, step * 16 * 256.0)))
            directory.finish(run)
            directory.release(run)
    data = read.of_runs([f"runs/{embed}-{steps}" for embed in (64, 128, 256) for steps in (100, 400, 1600)])
    points = data.points()
    assert points.parameters[0] == parameters(apply(experiment(), ["--model.embed", "64"]).model)["total"]
    assert points.tokens.tolist()[:3] == [100 * 4096, 400 * 4096, 1600 * 4096]
    first = apply(experiment(), ["--model.embed", "64"])
    assert points.flops[0] == flops_of(first)["training"] * 100 * 4096
    assert projection.fit(points).alpha == pytest.approx(0.34, rel=1e-3)
    code, out, _ = said(capsys, "runs", *FEW, "--approach", "projection")
    assert code == 0
    assert "9 runs of 3 sizes" in out
    assert "0.34 (" in out
    inner = read.of_runs(["runs/64-100"], "without_embedding").points()
    by_part = parameters(first.model)
    assert inner.parameters[0] == by_part["total"] - by_part["embedding"]
    assert said(capsys, "runs", "--loss", "bits_per_byte")[0] == 2
    unfinished = directory.open_run(apply(experiment(), ["--train.steps", "7"]), "runs/stopped")
    directory.release(unfinished)
    code, _, err = said(capsys, "runs")
    assert code == 2
    assert "runs/stopped is not finished" in err


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "cannot be read"),
        ("", "no column parameters, tokens, loss; it has none"),
        ("parameters,loss\n1,2\n", "no column tokens"),
        ("parameters,tokens,loss\n", "has no rows"),
        ("parameters,tokens,loss\n1e6,1e9,3\n1e6,x,3\n", "t.csv:3: tokens is 'x'"),
        ("parameters,tokens,loss\n1e6,1e9,0\n", "t.csv:2: loss is '0'"),
        ("parameters,tokens,loss\n1e6,1e9,3\n1e7,1e9,2\n1e8,2e9,2\n", "at least 6 runs"),
        ("parameters,tokens,loss\n" + "1e6,1e9,3\n1e6,2e9,2.9\n1e6,4e9,2.8\n" * 3, "one size"),
    ],
)
def test_a_table_that_holds_no_law_is_refused(tmp_path, monkeypatch, capsys, content, says):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        (tmp_path / "t.csv").write_text(content)
    code, _, err = said(capsys, "t.csv")
    assert code == 2
    assert says in err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "required"),
        (("nowhere",), "does not exist"),
        (("a.csv", "b.csv"), "expected one .csv file"),
        (("a.csv", "--budget", "-1"), "--budget -1"),
        (("a.csv", "--approach", "guess"), "invalid choice"),
        (("a.csv", "--resamples", "3"), "--resamples 3"),
        (("a.csv", "--out", "a.png"), ".svg"),
        (("a.csv", "--loss", "accuracy"), "of runs"),
    ],
)
def test_requests_that_make_no_sense_are_refused(tmp_path, monkeypatch, capsys, words, says):
    monkeypatch.chdir(tmp_path)
    code, _, err = said(capsys, *words)
    assert code == 2
    assert says in err
