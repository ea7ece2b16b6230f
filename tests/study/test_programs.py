"""One program for several runs: the numbers of each are those it has by itself."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from jaxlm import config
from jaxlm.config.errors import UsageError
from jaxlm.config.objective import columns
from jaxlm.config.paths import Leaf, walk
from jaxlm.data import rows as row_data
from jaxlm.data.dataset import in_memory
from jaxlm.layers.names import flatten
from jaxlm.study import programs
from jaxlm.study.lanes import Lanes
from jaxlm.study.variation import SEED, varied
from jaxlm.train.feed import as_batch
from jaxlm.train.held_out import make_sums
from jaxlm.train.initial import initial_state, initial_states
from jaxlm.train.setup import make_setup
from jaxlm.train.step import make_step
from tests.train.tiny import experiment

TINY = experiment()
STEPS = 50
TRAIN = config.Train(steps=STEPS, batch=4, length=16, clip=0.5, ema=0.9)
HIDDEN = {
    "model": config.Encoder(
        vocab=264,
        embed=16,
        layers=2,
        block=config.Block(config.Attention(2, 2, 8), config.Plain(24)),
        position=config.Learned(64),
        dropout=0.1,
    ),
    "tokenizer": config.Bytes(special=("[MASK]",)),
    "objective": config.MaskedLm(chunks=2),
}
CASES = {
    "adamw": {},
    "mup": {"model": dataclasses.replace(TINY.model, parametrization=config.MuP(embed=TINY.model.embed // 2))},
    "masked_lm": HIDDEN,
    "muon": {"optimizer": config.Muon()},
    "lion": {"optimizer": config.Lion()},
    "adafactor": {"optimizer": config.Adafactor(decay=0.1)},
}


def base(case: str) -> config.Experiment:
    where = dataclasses.replace(TINY.where, micro_batches=2)
    return dataclasses.replace(TINY, train=TRAIN, where=where, **CASES[case])


def changed(tree: config.Experiment, **numbers) -> config.Experiment:
    return programs.given(tree, {name.replace("__", "."): value for name, value in numbers.items()})


@functools.cache
def runs(case: str) -> tuple[config.Experiment, ...]:
    """Two seeds, two rates, two decays."""
    tree = base(case)
    return (
        changed(tree, train__seed=3),
        changed(tree, train__seed=4, optimizer__schedule__peak=3e-3, optimizer__decay=0.3),
        changed(tree, train__seed=3, optimizer__schedule__peak=3e-3),
    )


@functools.cache
def documents():
    draw = np.random.default_rng(0)
    arrays = [np.concatenate([[2], draw.integers(4, 40, n), [3]]) for n in draw.integers(5, 40, 100)]
    return in_memory(arrays, bytes=sum(map(len, arrays)), vocab=264, pad=0)


def rows(tree: config.Experiment) -> row_data.Rows:
    size = {"batch": tree.train.batch, "length": tree.train.length}
    ends = np.arange(264) % 5 == 0 if columns(tree.objective).ends else None
    return row_data.training(documents(), tree.packing, seed=tree.train.seed, ends=ends, **size)


def alone(tree: config.Experiment):
    """(losses, final state) of a run by itself, by the step that `jaxlm run` compiles."""
    setup = make_setup(tree, jax.devices()[:1])
    train = tree.train
    step = jax.jit(
        make_step(
            setup.objective,
            setup.optimizer,
            setup.call,
            seed=train.seed,
            micro_batches=tree.where.micro_batches,
            clip=train.clip,
            ema=train.ema,
        )
    )
    state, losses, mine = initial_state(setup), [], rows(tree)
    for i in range(train.steps):
        state, metrics = step(state, as_batch(mine.batch(i)))
        losses.append(metrics["loss"])
    return np.array(losses), jax.device_get(state)


@functools.cache
def alones(case: str):
    return [alone(tree) for tree in runs(case)]


def abreast(trees, lanes: Lanes):
    """The same of all runs, by one program."""
    names = varied(trees)
    setups = [make_setup(tree, lanes.devices[:1]) for tree in trees]
    shared = SEED not in names
    read = programs.batches(lanes, [rows(tree) for tree in trees], shared=shared)
    numbers = lanes.stack([programs.numbers(tree, names) for tree in trees])
    state, losses = lanes.stack(list(initial_states(setups))), []
    step, _ = programs.compiled_step(setups[0], lanes, numbers, state, read(0), shared=shared)
    for i in range(trees[0].train.steps):
        state, metrics = step(state, read(i))
        losses.append([one["loss"] for one in lanes.split(metrics)])
    return list(zip(np.array(losses).T, lanes.split(state)))


def apart(got, wanted) -> tuple[float, float]:
    """How far losses and final states are from each other, in units of the wanted."""
    losses = np.abs(got[0] / wanted[0] - 1).max()
    here, there = (flatten(tree) for tree in (got[1], wanted[1]))
    assert here.keys() == there.keys()
    whole = max(np.linalg.norm(leaf) for name, leaf in there.items() if name.startswith("model."))
    far = max(
        np.linalg.norm(here[name].astype(np.float64) - leaf) / max(np.linalg.norm(leaf), 1e-3 * whole)
        for name, leaf in there.items()
        if name.startswith(("model.", "ema."))
    )
    return losses, far


AT_NIGHT = [("masked_lm", True, 1), ("adamw", True, 2), ("mup", False, 1)]
AT_NIGHT += [(case, batched, 2) for case in ("muon", "lion", "adafactor") for batched in (False, True)]


@pytest.mark.parametrize(
    ("case", "batched", "devices"),
    [
        ("adamw", False, 1),
        ("adamw", True, 1),
        ("masked_lm", False, 2),
        *(pytest.param(*one, marks=pytest.mark.nightly) for one in AT_NIGHT),
    ],
)
def test_together_is_one_after_the_other(case, batched, devices):
    """Dropout, clipping, two micro-batches, a moving average; three runs on two devices leave a place over."""
    wanted = alones(case)
    found = abreast(runs(case), Lanes(3, tuple(jax.devices()[:devices]), batched))
    for i, (got, one) in enumerate(zip(found, wanted, strict=True)):
        losses, states = apart(got, one)
        assert losses <= 1e-5, (i, losses)
        assert states <= 1e-5, (i, states)
        for other in wanted[:i] + wanted[i + 1 :]:  # another seed, another rate
            losses, states = apart(got, other)
            assert losses > 1e-3
            assert states > 1e-2


@pytest.mark.parametrize("case", CASES)
def test_a_step_takes_the_state_of_its_setup(case):
    """What an optimizer keeps depends on the model too: muP has rates for hidden matrices."""
    setup = make_setup(base(case), jax.devices()[:1])
    numbers, batch = programs.numbers(setup.experiment, [SEED]), as_batch(rows(setup.experiment).batch(0))
    new, _ = jax.eval_shape(programs.step_of(setup), numbers, setup.abstract, batch)
    assert jax.tree.structure(new) == jax.tree.structure(setup.abstract)


def test_held_out_rows_are_hidden_at_the_rate_of_each_run():
    """With parameters and with an objective of their own."""
    trees = tuple(changed(base("masked_lm"), train__seed=i, objective__rate=0.15 + 0.3 * i) for i in range(2))
    lanes, setups = Lanes(2, tuple(jax.devices()[:1]), False), [make_setup(one, jax.devices()[:1]) for one in trees]
    states, batch = list(initial_states(setups)), as_batch(rows(trees[0]).batch(0))
    numbers = lanes.stack([programs.numbers(one, varied(trees)) for one in trees])
    together = jax.jit(lanes.map(programs.evaluation_of(setups[0]), shared=True))
    found = lanes.split(together(numbers, lanes.stack(states), lanes.share(batch)))
    for (totals, weights), setup, state in zip(found, setups, states, strict=True):
        alone = jax.jit(make_sums(setup.objective, setup.call))(state.model, state.frozen, batch)
        np.testing.assert_allclose(totals["masked_lm"], alone[0]["masked_lm"], rtol=1e-6)
        assert weights["masked_lm"] == alone[1]["masked_lm"]
    assert found[1][1]["masked_lm"] > 2 * found[0][1]["masked_lm"]


def test_seeds_that_a_program_is_given():
    """Wide and negative ones too: what a run begins with by itself, bit for bit."""
    trees = [changed(TINY, train__seed=seed) for seed in (0, 7, 2**31 + 5, 2**40 + 7, -1)]
    setups = [make_setup(tree, jax.devices()[:1]) for tree in trees]
    states = list(initial_states(setups))
    for setup, state in zip(setups[2:], states[2:], strict=True):
        jax.tree.map(np.testing.assert_array_equal, state, initial_state(setup))
    kernels = [np.asarray(flatten(state.model)["embedding.kernel"]) for state in states]
    same = [(a, b) for a in range(5) for b in range(a) if np.array_equal(kernels[a], kernels[b])]
    assert same == [(3, 1)]  # as jax has it: a key knows 32 bits of a seed


@pytest.mark.parametrize("kind", [config.AdamW(), pytest.param(config.Muon(), marks=pytest.mark.nightly)])
def test_a_state_in_bfloat16_stays_in_bfloat16(kind):
    tree = dataclasses.replace(
        base("adamw"), precision="bfloat16_all", optimizer=kind, objective=config.Autoregressive(z_loss=1e-4)
    )
    names = [leaf.path for leaf in walk(tree) if isinstance(leaf, Leaf) and type(leaf.value) is float]
    names = [name for name in names if name.startswith(("train.", "optimizer.", "objective."))]
    assert {"train.clip", "train.ema", "optimizer.decay", "objective.z_loss"} < set(names)
    setup = make_setup(tree, jax.devices()[:1])
    batch = as_batch(rows(tree).batch(0))
    new, _ = jax.eval_shape(programs.step_of(setup), programs.numbers(tree, names), setup.abstract, batch)
    assert [leaf.dtype for leaf in jax.tree.leaves(new)] == [leaf.dtype for leaf in jax.tree.leaves(setup.abstract)]


def test_numbers_that_the_program_hangs_on_are_named():
    block = config.Block(config.Attention(2, 2, 8), config.Plain(24))
    model = config.EncoderDecoder(vocab=264, embed=16, encoder_layers=1, decoder_layers=1, block=block)
    tree = dataclasses.replace(
        base("adamw"), model=model, tokenizer=HIDDEN["tokenizer"], objective=config.Infilling(permuted=0.5)
    )
    trees = (tree, changed(tree, objective__permuted=1.0, objective__rate=0.2, train__seed=1))
    with pytest.raises(UsageError, match=r"^objective\.permuted: the program hangs on the value"):
        abreast(trees, Lanes(2, tuple(jax.devices()[:1]), False))


def test_lanes():
    devices = tuple(jax.devices()[:2])
    lanes = Lanes.of(5, devices)
    assert not lanes.batched
    assert lanes.runs == [0, 1, 2, 3, 4, 4]
    assert Lanes.of(1, devices).devices == devices[:1]
    trees = [{"a": np.full(3, i), "b": np.float32(i)} for i in range(5)]
    stacked = lanes.stack(trees)
    assert stacked["a"].shape == (6, 3)
    assert {shard.device for shard in stacked["a"].addressable_shards} == set(devices)
    jax.tree.map(np.testing.assert_array_equal, lanes.split(stacked), trees)
