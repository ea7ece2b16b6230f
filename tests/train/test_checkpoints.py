import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxlm.config.errors import Failure
from jaxlm.layers import names
from jaxlm.train import checkpoints
from jaxlm.train.checkpoints import Checkpoints
from jaxlm.train.fingerprint import fingerprint


@flax.struct.dataclass
class State:
    step: jax.Array
    model: Any
    frozen: Any
    optimizer: Any
    ema: Any
    key: jax.Array


def state_at(step, width=512):
    """A small state whose every array hangs on the step."""
    rng = np.random.default_rng(step)
    kernel = rng.normal(size=(8, width)).astype(np.float32)
    model = {
        "up": {"kernel": jnp.asarray(kernel), "bias": None},
        "norm": jnp.asarray(rng.normal(size=8), jnp.bfloat16),
    }
    optimizer = optax.chain(optax.clip(1.0), optax.adamw(1e-3)).init(model)
    optimizer = jax.tree.map(
        lambda leaf: leaf + np.asarray(rng.normal(size=leaf.shape) * step, leaf.dtype), optimizer
    )
    return State(
        step=jnp.int32(step),
        model=model,
        frozen=None,
        optimizer=optimizer,
        ema=None,
        key=jax.random.fold_in(jax.random.key(0), step),
    )


def template(state=None, sharding=None):
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), state or state_at(0)
    )


def assert_same(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    assert fingerprint(found) == fingerprint(expected)


def save(directory, *steps, **options):
    with Checkpoints(directory, **options) as saved:
        for step in steps:
            assert saved.save(step, state_at(step), {"row": 16 * step})


def test_data_comes_back_as_json_has_it(tmp_path):
    with Checkpoints(tmp_path) as saved:
        saved.save(1, state_at(1), {"rows": {10: 1, 9: 2}, "at": (0.1, None)}, {"bits_per_byte": float("inf")})
        assert saved.best_step() is None
        assert saved.restore(template())[2] == {"rows": {"10": 1, "9": 2}, "at": [0.1, None]}


def test_nothing_saved_is_none(tmp_path):
    assert Checkpoints(tmp_path).restore(template()) is None
    assert Checkpoints(tmp_path / "absent", read_only=True).restore(template()) is None
    assert not (tmp_path / "absent").exists()


def test_round_trip_is_bitwise(tmp_path):
    save(tmp_path, 10, 20)
    step, state, data = Checkpoints(tmp_path).restore(template())
    assert (step, data) == (20, {"row": 320})
    assert_same(state, state_at(20))
    for found, expected in zip(jax.tree.leaves(state), jax.tree.leaves(state_at(20))):
        assert found.dtype == expected.dtype
    np.testing.assert_array_equal(jax.random.normal(state.key, (3,)), jax.random.normal(state_at(20).key, (3,)))


def test_a_saved_step_is_not_saved_again(tmp_path):
    with Checkpoints(tmp_path) as saved:
        assert saved.save(1, state_at(1), {})
        assert not saved.save(1, state_at(2), {})
        assert_same(saved.restore(template())[1], state_at(1))


MESHES = {(8,): ("rows",), (2, 4): ("rows", "columns"), (4, 2): (None, "columns"), (1,): ()}


def on(shape, state):
    spec = MESHES[shape]
    mesh = Mesh(np.array(jax.devices()[: np.prod(shape)]).reshape(shape), ("rows", "columns")[: len(shape)])

    def sharding(leaf):
        return NamedSharding(mesh, PartitionSpec(*spec if leaf.ndim == 2 else ()))

    return jax.tree.map(sharding, state)


@pytest.mark.parametrize("before", [(8,), (2, 4)])
@pytest.mark.parametrize("after", [(2, 4), (4, 2), (1,)])
def test_another_mesh_holds_the_same(tmp_path, before, after):
    state = jax.device_put(state_at(3), on(before, state_at(3)))
    with Checkpoints(tmp_path) as saved:
        saved.save(3, state, {})
    there = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        state,
        on(after, state),
    )
    _, found, _ = Checkpoints(tmp_path).restore(there)
    assert_same(found, state_at(3))
    assert found.model["up"]["kernel"].sharding == on(after, state).model["up"]["kernel"]


def test_donated_buffers_may_be_overwritten_at_once(tmp_path):
    donate = jax.jit(lambda state: jax.tree.map(lambda leaf: leaf * 3 + 1, state), donate_argnums=0)
    before = {"a": jnp.ones((1024, 4096)), "b": jnp.zeros((1024, 4096), jnp.bfloat16)}
    state = donate(before)
    assert before["a"].is_deleted()  # donations do happen here
    expected = {}
    with Checkpoints(tmp_path, keep=4) as saved:
        for step in range(3):
            expected[step] = fingerprint(state)
            saved.save(step, state, {})
            for _ in range(3):
                state = donate(state)
        saved.wait()
        for step in reversed(range(3)):
            found_step, found, _ = saved.restore(template(state))
            assert (found_step, fingerprint(found)) == (step, expected[step])
            shutil.rmtree(tmp_path / str(step))
            saved._manager.reload()
    assert len(set(map(str, expected.values()))) == 3


# --- which are kept ----------------------------------------------------------------------------------------


def test_the_last_two_and_the_best_are_kept(tmp_path):
    scores = {1: 3.0, 2: 1.0, 3: 2.0, 4: None, 5: float("nan"), 6: 1.5}
    for step, score in scores.items():
        # A new manager each time: scores must survive the process.
        with Checkpoints(tmp_path) as saved:
            metrics = None if score is None else {"bits_per_byte": score, "loss": -score}
            saved.save(step, state_at(step), {}, metrics)
    with Checkpoints(tmp_path) as saved:
        assert saved.steps() == [2, 5, 6]
        assert saved.best_step() == 2
        saved.save(7, state_at(7), {}, {"bits_per_byte": 0.5})
        saved.save(8, state_at(8), {})
        saved.save(9, state_at(9), {})
    assert Checkpoints(tmp_path).steps() == [7, 8, 9]


def test_without_scores_the_last_are_kept(tmp_path):
    save(tmp_path, 1, 2, 3, 4, keep=3)
    assert Checkpoints(tmp_path).steps() == [2, 3, 4]


# --- damage ------------------------------------------------------------------------------------------------


def data_file(step):
    """The largest file: the arrays' bytes."""
    return max((path for path in (step / "state").rglob("*") if path.is_file()), key=lambda p: p.stat().st_size)


def overwrite(path, begin, new):
    raw = bytearray(path.read_bytes())
    raw[begin : begin + len(new)] = new
    path.write_bytes(raw)


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def edit_meta(step):
    """A change that leaves valid JSON: the data would begin elsewhere."""
    path = step / "meta" / "metadata"
    path.write_text(path.read_text().replace('"row": 320', '"row": 321').replace('"row":320', '"row":321'))


DAMAGE = {
    "page zeroed": lambda step: overwrite(data_file(step), data_file(step).stat().st_size // 2, bytes(512)),
    "data truncated": lambda step: truncate(data_file(step)),
    "data emptied": lambda step: os.truncate(data_file(step), 0),
    "data deleted": lambda step: data_file(step).unlink(),
    "manifest truncated": lambda step: truncate(step / "state" / "manifest.ocdbt"),
    "manifest deleted": lambda step: (step / "state" / "manifest.ocdbt").unlink(),
    "_METADATA truncated": lambda step: truncate(step / "state" / "_METADATA"),
    "state deleted": lambda step: shutil.rmtree(step / "state"),
    "meta truncated": lambda step: truncate(step / "meta" / "metadata"),
    "meta deleted": lambda step: shutil.rmtree(step / "meta"),
    "meta edited": edit_meta,
    "everything deleted": lambda step: [shutil.rmtree(step), step.mkdir()],
}
HARMLESS = {
    "_METADATA deleted": lambda step: (step / "state" / "_METADATA").unlink(),
    "_sharding deleted": lambda step: (step / "state" / "_sharding").unlink(),
    "_CHECKPOINT_METADATA truncated": lambda step: truncate(step / "_CHECKPOINT_METADATA"),
    "commit mark deleted": lambda step: (step / "commit_success.txt").unlink(),
}


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory):
    directory = tmp_path_factory.mktemp("two")
    save(directory, 10, 20)
    return directory


@pytest.fixture
def run(two_steps, tmp_path):
    shutil.copytree(two_steps, tmp_path / "run")
    return tmp_path / "run"


SAYS = {
    "data": r"state cannot be read: (model|optimizer|step|key)[\w.]*: ValueError: [A-Z_]+: ",
    "page": r"state cannot be read: (model|optimizer)|these arrays are not what was saved: (model|optimizer)",
    "manifest": r"state cannot be read: .*(DATA_LOSS|NOT_FOUND)",
    "_METADATA": "state cannot be read: JSONDecodeError",
    "state": "state cannot be read: .*not found",
    "meta": "meta cannot be read: |meta is not what was saved",
    "everything": "meta cannot be read: .*not found",
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_step_is_named_set_aside_and_walked_over(run, kind, caplog):
    DAMAGE[kind](run / "20")
    saved = Checkpoints(run)
    step, state, data = saved.restore(template())
    assert (step, data) == (10, {"row": 160})
    assert_same(state, state_at(10))
    assert len(saved.damaged) == 1
    assert re.match("step 20 is damaged: (" + SAYS[kind.split()[0]] + ")", saved.damaged[0])
    assert "\n" not in saved.damaged[0]
    assert saved.damaged[0] in caplog.text
    assert (run / "damaged" / "20").is_dir()
    assert saved.steps() == [10]
    assert saved.save(20, state_at(20), {"row": 320})
    assert_same(saved.restore(template())[1], state_at(20))


@pytest.mark.parametrize("kind", HARMLESS)
def test_what_is_not_needed_may_be_missing(run, kind):
    HARMLESS[kind](run / "20")
    step, state, _ = Checkpoints(run).restore(template())
    assert step == 20
    assert_same(state, state_at(20))


def flips(directory, count):
    """Random (path, byte, bit) in any file of a step."""
    rng = np.random.default_rng(7)
    files = sorted(path.relative_to(directory) for path in directory.rglob("*") if path.is_file())
    sizes = np.array([(directory / path).stat().st_size for path in files])
    for _ in range(count):
        path = files[rng.choice(len(files), p=sizes / sizes.sum())]
        yield path, int(rng.integers((directory / path).stat().st_size)), int(rng.integers(8))


def silently_wrong(run, count):
    """How often a flipped bit anywhere in the newest step gives a state that is not step 20's."""
    wrong, walked = 0, 0
    for path, place, bit in flips(run / "20", count):
        raw = (run / "20" / path).read_bytes()
        overwrite(run / "20" / path, place, bytes([raw[place] ^ 1 << bit]))
        step, state, data = Checkpoints(run, read_only=True).restore(template())
        expected = (fingerprint(state_at(step)), {"row": 16 * step})
        wrong += (fingerprint(state), data) != expected
        walked += step == 10
        (run / "20" / path).write_bytes(raw)
    return wrong, walked


def test_no_flipped_bit_is_silent(run):
    wrong, walked = silently_wrong(run, 10)
    assert wrong == 0
    assert walked > 0


def test_without_the_fingerprint_flipped_bits_are_silent(run, monkeypatch):
    saved = {step: fingerprint(checkpoints._plain(state_at(step))) for step in (10, 20)}
    monkeypatch.setattr(checkpoints, "fingerprint", lambda tree: saved[int(names.flatten(tree)["step"])])
    wrong, _ = silently_wrong(run, 20)
    assert wrong > 0


def test_the_damaged_array_is_named(run):
    # The kernel is stored compressed in its own chunk: find a flip that changes only values.
    path = data_file(run / "20")
    for place in range(100, path.stat().st_size, 97):
        raw = path.read_bytes()
        overwrite(path, place, bytes([raw[place] ^ 4]))
        saved = Checkpoints(run, read_only=True)
        saved.restore(template())
        path.write_bytes(raw)
        if any("these arrays are not what was saved: " in line for line in saved.damaged):
            named = saved.damaged[0].partition("saved: ")[2].split(", ")
            assert set(named) <= set(names.flatten(checkpoints._plain(state_at(0))))
            return
    pytest.fail("no flip changed values")


def test_when_all_are_damaged_each_is_named_and_none_is_moved(run):
    for step in ("10", "20"):
        DAMAGE["data deleted"](run / step)
    saved = Checkpoints(run)
    with pytest.raises(Failure, match=r"(?s)no checkpoint in .*run can be used.*step 20 .*step 10 "):
        saved.restore(template())
    assert saved.steps() == [10, 20]
    assert not (run / "damaged").exists()


def test_damaged_twice_at_the_same_step(run):
    for _ in range(2):
        saved = Checkpoints(run)
        DAMAGE["data truncated"](run / "20")
        assert saved.restore(template())[0] == 10
        saved.save(20, state_at(20), {})
        saved.close()
    assert sorted(path.name for path in (run / "damaged").iterdir()) == ["20", "20-1"]


def test_a_read_only_reader_moves_nothing(run):
    DAMAGE["data truncated"](run / "20")
    shutil.copytree(run / "10", run / "30.orbax-checkpoint-tmp")
    before = sorted(path.relative_to(run) for path in run.rglob("*"))
    assert Checkpoints(run, read_only=True).restore(template())[0] == 10
    assert sorted(path.relative_to(run) for path in run.rglob("*")) == before


def test_half_written_steps_are_ignored_and_cleaned_up(run):
    shutil.copytree(run / "10", run / "30.orbax-checkpoint-tmp")
    assert Checkpoints(run).restore(template())[0] == 20
    assert not (run / "30.orbax-checkpoint-tmp").exists()


# --- other models, other runs ------------------------------------------------------------------------------


def test_another_model_is_refused_and_nothing_is_moved(run):
    with pytest.raises(Failure, match=r"(?s)20 holds another model.*float32\[8, 512\], not float32\[8, 32\]"):
        Checkpoints(run).restore(template(state_at(0, width=32)))
    assert Checkpoints(run).steps() == [10, 20]


def test_another_dtype_is_refused(run):
    wanted = template()
    wanted = wanted.replace(step=jax.ShapeDtypeStruct((), jnp.uint32))
    with pytest.raises(Failure, match=r"step is int32\[\], not uint32\[\]"):
        Checkpoints(run).restore(wanted)


def test_another_experiment_is_refused(tmp_path):
    save(tmp_path, 1, config="aaaa")
    assert Checkpoints(tmp_path, config="aaaa").restore(template())[0] == 1
    with pytest.raises(Failure, match="another experiment"):
        Checkpoints(tmp_path, config="bbbb").restore(template())


def test_parameters_alone(run):
    wanted = template(state_at(0).model)
    step, model, _ = Checkpoints(run, config="mine", read_only=True).restore(wanted, only="parameters")
    assert step == 20
    assert_same(model, state_at(20).model)


def test_parameters_in_another_dtype(run):
    wanted = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.bfloat16), state_at(0).model)
    _, model, _ = Checkpoints(run).restore(wanted, only="parameters")
    assert_same(model, jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), state_at(20).model))


def test_missing_parameters_are_refused(run):
    wanted = template(state_at(0).model) | {"head": jax.ShapeDtypeStruct((3,), jnp.float32)}
    with pytest.raises(Failure, match=r"missing model\.head"):
        Checkpoints(run).restore(wanted, only="parameters")


# --- the disk ----------------------------------------------------------------------------------------------


def test_a_directory_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Failure, match="cannot keep checkpoints in"):
        Checkpoints(tmp_path / "file" / "run")


FULL = """
import resource, signal, sys
from tests.train.test_checkpoints import *
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
saved = Checkpoints(sys.argv[1])
saved.save(10, state_at(10), {"row": 160})
saved.wait()
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
for _ in range(2):
    try:
        saved.save(20, state_at(20), {"row": 320})
        saved.wait()
    except Failure as failure:
        print("FAILED", failure)
        assert sorted(os.listdir(sys.argv[1])) == ["10"]
assert saved.restore(template())[0] == 10
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
saved.save(30, state_at(30), {"row": 480})
saved.close()
print("STEPS", *saved.steps())
"""

KILLED = """
import sys
from tests.train.test_checkpoints import *
with Checkpoints(sys.argv[1]) as saved:
    for step in range(1, 1000):
        saved.save(step, state_at(step, width=65536), {"row": 16 * step})
        print(step, flush=True)
"""


def child(code, directory, **options):
    root = pathlib.Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": str(root), "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(
        [sys.executable, "-c", code, str(directory)], cwd=root, env=environment, text=True, **options
    )


def test_a_full_disk_is_one_message_and_the_next_save_works(tmp_path):
    process = child(FULL, tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    failures = [line for line in out.splitlines() if line.startswith("FAILED")]
    assert len(failures) == 2, out
    assert "cannot save a checkpoint in" in failures[0]
    assert "step 10 is the last complete one" in failures[0]
    assert "STEPS 10 30" in out
    assert_same(Checkpoints(tmp_path).restore(template())[1], state_at(30))


@pytest.mark.parametrize("seed", range(2))
def test_killed_in_the_middle_of_a_save(tmp_path, seed):
    process = child(KILLED, tmp_path, stdout=subprocess.PIPE)
    begun = 0
    while begun < 2 + seed:
        begun = int(process.stdout.readline())
    time.sleep(0.02 * seed)
    process.send_signal(signal.SIGKILL)
    process.wait()
    begun = max([begun, *map(int, process.stdout.read().split())])
    step, state, data = Checkpoints(tmp_path).restore(template(state_at(0, width=65536)))
    assert begun - 1 <= step <= begun + 1
    assert data == {"row": 16 * step}
    assert_same(state, state_at(step, width=65536))


def test_nothing_is_printed(tmp_path):
    code = "import sys; from tests.train.test_checkpoints import *; save(sys.argv[1], 1, 2, 3); "
    code += "Checkpoints(sys.argv[1], read_only=True).restore(template())"
    process = child(code, tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out, err) == (0, "", "")


def test_what_json_cannot_hold_is_refused_before_anything_is_written(tmp_path):
    with Checkpoints(tmp_path) as saved, pytest.raises(TypeError, match="JSON"):
        saved.save(1, state_at(1), {"row": np.int64(3)})
    assert list(tmp_path.iterdir()) == []
