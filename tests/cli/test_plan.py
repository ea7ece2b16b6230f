"""`jaxlm plan`: what is refused before anything is compiled, and the page."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys

import pytest

from jaxlm.cli import main, plan, planned
from jaxlm.config.errors import Failure
from jaxlm.config.load import load_experiment
from jaxlm.config.overrides import apply
from jaxlm.planning import buffers, estimate, findings, topology
from jaxlm.planning.explain import Plan, Traffic

SMALL = "tests/planning/small.py"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "the experiment comes first"),
        ([SMALL], "which chips? jaxlm plan EXPERIMENT --topology"),
        ([SMALL, "--topology", "v5p:9x9"], "no topology 'v5p:9x9'; there are"),
        ([SMALL, "--topology", "v5e:2x2", "--where.flags", "fast"], "where.flags: no set 'fast'; nearest:"),
        ([SMALL, "--topology", "h100:8", "--where.flags", "vmem"], "vmem is for v5e, v5p, v6e; h100 has"),
        ([SMALL, "--topology", "v5e:2x2", "--flags", "vmem"], "--where.flags"),
        ([SMALL, "--topology", "v5e:2x2", "--price", "cheap"], "--price cheap: expected USD"),
        ([SMALL, "--topology", "v5e:2x2", "--price", "-1"], "--price -1: expected USD"),
        ([SMALL, "--topology", "v5e:2x2", "--search", "0"], "--search 0: expected a number"),
        ([SMALL, "--topology", "v5e:2x2", "--sav"], "--save"),
        ([SMALL, "--topology", "v5e:2x2", "--where.mesh.fdsp", "2"], "--where.mesh.fsdp"),
    ],
)
def test_refusals(capsys, words, said):
    assert main(["plan", *words]) == 2
    assert said in capsys.readouterr().err


def test_a_missing_compiler_is_named_without_importing_jax():
    program = (
        "import sys\nfrom jaxlm.planning import topology\n"
        "topology.EXTRAS['tpu'] = ('no_such_package',)\n"
        "from jaxlm.cli import main\ncode = main(sys.argv[1:])\nassert 'jax' not in sys.modules\nsys.exit(code)"
    )
    words = [sys.executable, "-c", program, "plan", SMALL, "--topology", "v5e:2x2"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "pip install 'jaxlm[tpu]'" in done.stderr


def example(**changes) -> Plan:
    figures = estimate.Estimate(
        compute=2.0,
        attention=0.3,
        experts=0.0,
        exposed=0.05,
        hidden=0.06,
        step=2.35,
        model_flops=4.5e16,
        hardware_flops=5e16,
        mfu=0.617,
        hfu=0.7,
        tokens_per_day=3.6e10,
        chip_hours=22_000.0,
        cost=92_400.0,
        calibration="How much to believe.",
    )
    plan = Plan(
        experiment="llama",
        what="0123",
        topology="v5p:4x4x4",
        devices=64,
        mesh={"data": 4, "fsdp": 16},
        batch=(256, 4096),
        micro_batches=2,
        remat="full",
        flags=("async_gathers",),
        memory={"parameters": 2 * 2**30, "gradients": 2**30},
        peak=50 * 2**30,
        available=100 * 2**30,
        host=0,
        estimate=figures,
        traffic=(Traffic("all-gather", "fsdp", "in a loop", True, 14, 2e10, 0.055),),
        buffers=(buffers.Buffer("bf16[32,4,4096]", 2**20, 3, "mlp"),),
        untimed={"ours": 64},
        findings=(findings.Finding("recomputation", "seconds", 1.0, "again", (("--where.remat", "dots"),)),),
        figures={"seconds": 2.35},
        lower_seconds=2.0,
        compile_seconds=30.0,
        process_bytes=2**31,
        versions={"jax": "1"},
    )
    return dataclasses.replace(plan, **changes)


def test_the_page_and_its_data(capsys, monkeypatch, tmp_path):
    from jaxlm.planning import explain

    asked = []
    monkeypatch.setattr(explain, "make_plan", lambda *given: (asked.append(given), (example(), "HLO"))[1])
    monkeypatch.setattr(topology, "check_installed", lambda where: None)
    monkeypatch.setattr(topology, "environment", lambda where: None)
    words = [SMALL, "--topology", "v5p:4x4x4", "--where.flags", "async_gathers", "--price", "3", "--json"]
    assert main(["plan", *words, str(tmp_path / "plan.json"), "--hlo", str(tmp_path / "hlo.txt")]) == 0
    tree, where, price = asked[0]
    assert (str(where), tree.where.flags, price) == ("v5p:4x4x4", ("async_gathers",), 3.0)
    page = capsys.readouterr().out
    for said in (
        "64 devices as data 4 x fsdp 16; 256 rows x 4096 tokens in 2 micro-batches",
        "remat full; flags async_gathers",
        "attention kernels, pessimistic, ms",
        "not in the estimate: ours, calls",
        "  try --where.remat dots",
        "How much to believe.",
        "92,400",
    ):
        assert said in page
    kept = json.loads((tmp_path / "plan.json").read_text())
    assert kept["estimate"]["mfu"] == 0.617
    assert kept["findings"][0]["fixes"] == [["--where.remat", "dots"]]
    assert (tmp_path / "hlo.txt").read_text() == "HLO"


def test_a_plan_without_kernels_price_or_collectives():
    figures = dataclasses.replace(example().estimate, attention=0.0, cost=None)
    page = "\n".join(planned.pages(example(estimate=figures, traffic=(), findings=(), untimed={})))
    assert "attention kernels" not in page
    assert "USD" not in page
    assert "no collective of a MiB" in page
    assert "try" not in page


def test_a_file_that_cannot_be_written_is_a_failure(tmp_path):
    with pytest.raises(Failure, match="cannot be written"):
        plan._write(os.path.join(tmp_path, "no", "such", "place"), "")


FIGURES = {"exposed bytes": 0.0, "gathered bytes": 0.0, "all-reduced bytes in the layer loop": 0.0}


@pytest.fixture
def beside(tmp_path, monkeypatch):
    """The small experiment in a directory of its own, and a compiler that needs a second less each time."""
    from jaxlm.planning import explain

    shutil.copy(SMALL, tmp_path / "small.py")
    monkeypatch.setattr(topology, "check_installed", lambda where: None)
    monkeypatch.setattr(topology, "environment", lambda where: None)
    monkeypatch.setattr(topology, "devices", lambda where: [None] * 4)
    asked = []

    def make_plan(tree, where, price):
        asked.append(tree)
        if tree.train.steps == 1 or (len(asked) == 1 and tree.train.steps == 2):
            raise Failure("does not fit")
        figures = dataclasses.replace(example().estimate, step=3.0 / len(asked))
        own = {"experiment": tree.name, "remat": tree.where.remat, "flags": tree.where.flags}
        return example(estimate=figures, figures=FIGURES, topology=str(where), devices=4, **own), "HLO"

    monkeypatch.setattr(explain, "make_plan", make_plan)
    return tmp_path, asked


def test_a_plan_is_kept_beside_the_experiment(capsys, monkeypatch, beside):
    path, _ = beside
    words = [str(path / "small.py"), "--topology", "v5p:2x2x1", "--where.flags", "vmem", "--save", "--price", "3"]
    assert main(["plan", *words]) == 0
    kept = path / "plans" / "small-v5p-4.json"
    assert capsys.readouterr().out.endswith(f"\nkept as {kept}\n")
    one = json.loads(kept.read_text())
    assert one["command"] == ["jaxlm", "plan", *words[:5]]
    assert (one["flags"], one["step ms"]) == (["vmem"], 3000)
    # by its module, as it is written from elsewhere
    kept.unlink()
    monkeypatch.syspath_prepend(str(path))
    assert main(["plan", "small", "--topology", "v5p:2x2x1", "--save"]) == 0
    assert json.loads(kept.read_text())["command"] == ["jaxlm", "plan", "small", "--topology", "v5p:2x2x1"]


def test_nothing_is_kept_unless_it_is_asked(beside):
    path, _ = beside
    assert main(["plan", str(path / "small.py"), "--topology", "v5p:2x2x1"]) == 0
    assert not (path / "plans").exists()


def test_the_best_of_a_search_is_kept_with_the_words_that_give_it(capsys, beside):
    path, asked = beside
    words = [str(path / "small.py"), "--topology", "v5p:2x2x1", "--train.steps", "2"]
    assert main(["plan", *words, "--search", "3", "--save"]) == 0
    command = json.loads((path / "plans" / "small-v5p-4.json").read_text())["command"]
    assert command[: 2 + len(words)] == ["jaxlm", "plan", *words]
    change = command[2 + len(words) :]
    assert change
    base = load_experiment(words[0])
    assert apply(base, [*words[3:], *change]) == asked[-1]  # the last to be compiled is the fastest here
    assert apply(base, words[3:]) != asked[-1]
    # all refused: the table is printed, and that there is nothing to keep
    words[-1] = "1"
    assert main(["plan", *words, "--search", "3", "--save"]) == 1
    assert "there is no plan to save" in capsys.readouterr().err


def test_a_search_compiles_the_best_and_ranks_them(capsys, monkeypatch, tmp_path):
    from jaxlm.planning import explain

    asked = []

    def make_plan(tree, where, price):
        asked.append(tree.where.mesh)
        if len(asked) == 1:
            raise Failure("does not fit")
        figures = dataclasses.replace(example().estimate, step=3.0 / len(asked))
        return example(estimate=figures), "HLO"

    monkeypatch.setattr(explain, "make_plan", make_plan)
    monkeypatch.setattr(topology, "check_installed", lambda where: None)
    monkeypatch.setattr(topology, "environment", lambda where: None)
    monkeypatch.setattr(topology, "devices", lambda where: [None] * 4)
    kept = tmp_path / "search.json"
    assert main(["plan", SMALL, "--topology", "v5p:2x2x1", "--search", "3", "--json", str(kept)]) == 0
    out = capsys.readouterr().out
    assert "does not fit" in out
    assert len(set(asked)) == 3
    rows = json.loads(kept.read_text())
    assert [row["seconds"] for row in rows] == [1.0, 1.5, None]  # the fastest first, the refused last
