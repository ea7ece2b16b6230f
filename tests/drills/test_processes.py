"""Two processes train as one does: the same batches, the same end; and what happens to one concerns both."""

import json
import shutil
import signal
import time

import pytest

from tests.drills.drill import ROOT, contents, end, kill, saved, trained, wait_for

FOUR = ("--where.mesh.fsdp", "2")
"""Of four devices: data 2 x fsdp 2, so that parameters lie on both processes."""


@pytest.fixture(scope="module")
def both(ground):
    """The name of a run of two processes that nothing disturbed."""
    first, other = (end(process).expect(0) for process in ground.train_on_processes("both", *FOUR))
    assert "finished" in first.out
    assert "finished" not in other.out
    return "both"


def close(one: dict, other: dict) -> None:
    """Losses as on two meshes: the sum over processes is taken in another order than that over devices."""
    assert one.keys() == other.keys()
    for key, values in one.items():
        assert values["loss"] == pytest.approx(other[key]["loss"], rel=2e-6), key


def test_two_processes_train_as_one(ground, both, straight):
    one = straight(*FOUR, devices=4)
    close(ground.outcome(both)[1], ground.outcome(one)[1])
    for entry in ("data", "tokenizer", "mesh", "what", "lowered_step"):
        assert ground.manifest(both)[entry] == ground.manifest(one)[entry], entry
    names = {item.name for item in (ground.path / both).iterdir()}
    assert names == {item.name for item in (ground.path / one).iterdir()}
    before = contents(ground.path / both)
    again = [end(process).expect(0) for process in ground.train_on_processes(both, *FOUR)]
    assert "both is finished" in again[0].out
    assert contents(ground.path / both) == before


EIGHT = {
    "replica 2, fsdp 4": ("--where.mesh.replica", "2", "--where.mesh.fsdp", "4"),
    "data 2, fsdp 2, tensor 2": ("--where.mesh.fsdp", "2", "--where.mesh.tensor", "2"),
    "fsdp 2, context 4": ("--where.mesh.fsdp", "2", "--where.mesh.context", "4"),
    "pipeline 2, fsdp 4": (
        *("--where.mesh.pipeline", "2", "--where.mesh.fsdp", "4", "--where.pipeline.micro_batches", "4"),
        *("--model.layers", "4"),
    ),
}


@pytest.mark.nightly
@pytest.mark.parametrize("mesh", EIGHT)
def test_two_processes_of_four_devices_train_as_one_of_eight(ground, straight, mesh):
    words = (*EIGHT[mesh], "--train.batch", "32")
    name = mesh.replace(", ", "-").replace(" ", "")
    for process in ground.train_on_processes(name, *words, devices=4):
        end(process).expect(0)
    close(ground.outcome(name)[1], ground.outcome(straight(*words, devices=8))[1])


@pytest.mark.nightly
def test_what_two_processes_saved_goes_on_as_one(ground, both):
    run = ground.path / "fewer"
    shutil.copytree(ground.path / both, run)
    (run / "DONE").unlink()
    shutil.rmtree(run / "checkpoints/60")
    assert "resumed at step 50" in ground.finish("fewer", *FOUR, devices=4).out
    close(ground.outcome("fewer")[1], ground.outcome(both)[1])


@pytest.mark.nightly
def test_what_happens_to_one_concerns_both(ground, both):
    """Stopped by a signal to one of them, then killed one of them: the end is the undisturbed one's."""
    run = ground.path / "two"
    processes = ground.train_on_processes("two", *FOUR)
    wait_for(processes[0], trained(run, 15))
    processes[1].send_signal(signal.SIGTERM)
    first, _ = (end(process).expect(75) for process in processes)
    step = saved(run)[-1]
    assert f"stopped at step {step} and saved" in first.out

    processes = ground.train_on_processes("two", *FOUR)
    wait_for(processes[0], trained(run, (step // 5 + 1) * 5))
    kill(processes[1])
    start = time.monotonic()
    assert end(processes[0], patience=60).code not in (0, 75)
    assert time.monotonic() - start < 20
    assert not (run / "DONE").exists()

    last = saved(run)[-1]
    first, _ = (end(process).expect(0) for process in ground.train_on_processes("two", *FOUR))
    assert f"resumed at step {last}" in first.out
    assert ground.outcome("two") == ground.outcome(both)


def test_a_refusal_reaches_all_processes(ground):
    """One message from the process that knows, the same exit code from all, and no waiting for each other."""
    start = time.monotonic()
    processes = ground.train_on_processes("nothing", "--data.source.paths", "nothing/*.txt")
    first, other = (end(process, patience=60).expect(2) for process in processes)
    assert "the glob 'nothing/*.txt' matches no file" in first.err
    assert "process 0 could not go on: see its message" in other.err
    assert "Traceback" not in first.err + other.err
    assert not (ground.path / "nothing").exists()
    assert time.monotonic() - start < 60


BATCHES = """
import hashlib, json, sys
import jax, numpy as np
from jaxlm.cluster.discovery import join
join()
from jaxlm.config import Stream
from jaxlm.data import rows
from jaxlm.train import feed
from jaxlm.train.setup import make_setup
from jaxlm.config.load import load_experiment
from jaxlm.config.overrides import apply
from tests.train.test_meshes import documents
setup = make_setup(apply(load_experiment(sys.argv[1]), sys.argv[2:]))
stream = rows.training(documents(), Stream(), batch=8, length=32, seed=0)
for step in (0, 1, 57, 1000):
    for name, leaf in jax.tree_util.tree_leaves_with_path(feed.global_batch(stream, setup.call.layout, step)):
        for shard in leaf.addressable_shards:
            rows_of = list(range(8))[shard.index[0]]
            for row, values in zip(rows_of, np.asarray(shard.data)):
                print(json.dumps([step, str(name), row, hashlib.sha256(values.tobytes()).hexdigest()[:16]]))
"""


@pytest.mark.nightly
def test_batches_are_the_same(ground):
    """Each process reads its own rows, and all rows are those of one process."""

    def batches(process) -> dict:
        lines = [json.loads(line) for line in end(process).expect(0).out.splitlines() if line.startswith("[")]
        return {(step, name, row): digest for step, name, row, digest in lines}

    words = (str(ROOT / "tests/train/tiny.py"), *FOUR)
    one = batches(ground.script(BATCHES, *words, devices=4))
    parts = [batches(process) for process in ground.on_processes(ground.script, BATCHES, *words, devices=2)]
    assert len(one) == 4 * 7 * 8
    assert len({digest for (_, name, _), digest in one.items() if "ids" in name}) == 4 * 8
    assert all(len(part) == len(one) / 2 for part in parts)
    assert parts[0] | parts[1] == one


SLOW = """
import sys, time
import jax
from jaxlm import cli
compile = jax.stages.Lowered.compile
def slowly(self, *rest, **options):
    time.sleep(40 if jax.process_index() and "jit_step" in self.as_text()[:200] else 0)
    return compile(self, *rest, **options)
jax.stages.Lowered.compile = slowly
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.nightly
def test_a_process_that_compiles_for_longer_is_waited_for(ground, both):
    """Collectives on CPUs give up after 30 seconds."""
    words = ("run", str(ROOT / "tests/train/tiny.py"), "--run-dir", "slow", *FOUR)
    first, _ = (end(one).expect(0) for one in ground.on_processes(ground.script, SLOW, *words, devices=2))
    assert "finished" in first.out
    assert ground.outcome("slow") == ground.outcome(both)
