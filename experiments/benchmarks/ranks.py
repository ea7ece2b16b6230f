"""How much rank does a change of text take: LoRA, rsLoRA, DoRA and VeRA by rank, beside training everything.

    python experiments/benchmarks/ranks.py --plot ranks.png

A decoder of 193,000 parameters, trained on the sources of Python's library (3.4321 nats a token of held-out
sources), is adapted to Python's documentation: 50 steps of 4 rows of 128 tokens, AdamW after 5 steps of warm-up,
alpha 16, all projections of the blocks; "full" trains embedding and norms too. A seed draws the adapter and the
rows; the decoder is one. Of the rates 1e-3, 3e-3, 1e-2 and 3e-2, the same for all, each line has the one with the
least mean loss of held-out documentation, which is what losses are of too. All ranks, rates and seeds of a method
are one program: adapters are padded to rank 64, and the padding stays zero. Differences are from LoRA of that
rank, p is corrected for the four of a rank:

    rank  method  trained   rate    loss  difference  95 % interval            p  detectable  verdict
       1  lora      3,840  0.003  3.4413           -  -                        -           -  baseline
       1  rslora    3,840  0.003  3.4413      0.0000  0.0000 to 0.0000     1.000      0.0000  inside noise
       1  dora      5,952  0.003  3.4376     -0.0037  -0.0065 to -0.001    0.083      0.0072  inside noise
       1  vera      2,133   0.03  3.4690     +0.0277  +0.00032 to +0.0551  0.098      0.0722  inside noise
       1  full    192,960  0.001  3.3264     -0.1149  -0.1584 to -0.0714   0.031      0.1147  better
       4  lora     15,360  0.003  3.4131           -  -                        -           -  baseline
       4  rslora   15,360  0.003  3.4128    -0.00033  -0.0190 to +0.0183   0.946      0.0492  inside noise
       4  dora     17,472  0.003  3.4112     -0.0019  -0.0025 to -0.0014   0.017      0.0014  better
       4  vera      2,196   0.03  3.4510     +0.0379  +0.0193 to +0.0566   0.038      0.0492  worse
       4  full    192,960  0.001  3.3264     -0.0867  -0.1302 to -0.0431   0.038      0.1148  better
      16  lora     61,440  0.003  3.4003           -  -                        -           -  baseline
      16  rslora   61,440  0.003  3.3966     -0.0037  -0.0775 to +0.0702   0.850      0.1946  inside noise
      16  dora     63,552  0.003  3.3986     -0.0017  -0.0034 to +6.6e-05  0.107      0.0046  inside noise
      16  vera      2,448   0.03  3.4459     +0.0456  +0.0360 to +0.0552   0.010      0.0252  worse
      16  full    192,960  0.001  3.3264     -0.0739  -0.1235 to -0.0243   0.070      0.1307  inside noise
      64  lora    245,760  0.003  3.3967           -  -                        -           -  baseline
      64  rslora  245,760  0.001  3.3839     -0.0128  -0.0320 to +0.0064   0.123      0.0506  inside noise
      64  dora    247,872  0.003  3.3954     -0.0013  -0.0027 to +0.00015  0.123      0.0037  inside noise
      64  vera      3,456   0.03  3.4353     +0.0386  +0.0302 to +0.0469   0.010      0.0221  worse
      64  full    192,960  0.001  3.3264     -0.0703  -0.1178 to -0.0228   0.071      0.1252  inside noise

At rank 1 LoRA and rsLoRA are the same. Means fall with the rank (which was not tested), and training everything
has the lowest: it is told from LoRA at ranks 1 and 4, and inside noise at 16 and 64. It is best at the least of
the rates, and VeRA at the largest: both may have better ones beyond. DoRA (arXiv:2402.09353) is ahead of LoRA by
0.004 nats or less, which is more than noise at rank 4 only. VeRA (arXiv:2310.11454) has 2,133 to 3,456 numbers,
fewer than LoRA of rank 1 has, and is behind LoRA of its rank from 4 on. rsLoRA (arXiv:2312.03732) is inside noise
of LoRA at every rank. What it is made for shows in lengths, here at the rate 0.01, the first gradient and |new W -
W| / |W| after the last step: by alpha / rank both shrink with the rank, by alpha / sqrt(rank) the gradient does
not and the update grows a little:

    rank  gradient a/r  gradient a/sqrt r  update a/r  update a/sqrt r
       1        0.9704             0.9704      0.4582           0.4582
       4        0.5232             1.0465      0.3190           0.4788
      16        0.2611             1.0443      0.2125           0.5022
      64        0.1286             1.0291      0.1670           0.5856
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import small_models as small
from jaxtyping import Array, Float, PyTree

from jaxlm import config
from jaxlm.adapters.build import adapted
from jaxlm.adapters.build import trained as is_trained
from jaxlm.adapters.lora import LoRA, scale_of
from jaxlm.adapters.vera import Given, VeRA
from jaxlm.cli import environment
from jaxlm.cli.text import table
from jaxlm.config.data import kept
from jaxlm.corpus.documents import documents
from jaxlm.layers import random
from jaxlm.layers.contracts import Batch, Call
from jaxlm.layers.names import combine, map_named, partition
from jaxlm.layers.projection import Weight
from jaxlm.layers.weights import map_weights, weights_of
from jaxlm.objectives.objective import Objective
from jaxlm.parallel.layout import single_device
from jaxlm.runs.files import write_atomically
from jaxlm.study.lanes import Lanes
from jaxlm.train import optimizers
from jaxlm.train.feed import as_batch
from jaxlm.train.load import load_run
from jaxlm.train.run import prepared_data, rows_of
from jaxlm.train.setup import make_objective

METHODS, FULL = ("lora", "rslora", "dora", "vera"), "full"
RANKS = (1, 4, 16, 64)
RATES = (1e-3, 3e-3, 1e-2, 3e-2)
ALPHA, STEPS, WARMUP, CLIP = 16.0, 50, 5, 1.0
PARTS = {"sources": ("library/",), "documentation": ("topics/", "builtin/")}
"""Where the text of pretraining and that of adapting begin, in the names of Python's own documents."""


@dataclass(frozen=True)
class Arm:
    """A lane of a program."""

    method: str
    rank: int
    rate: float
    seed: int

    @property
    def adapter(self) -> config.adapter.Adapter:
        """What is trained."""
        match self.method:
            case "lora":
                return config.Lora(self.rank, ALPHA)
            case "rslora":
                return config.Lora(self.rank, ALPHA, "root")
            case "dora":
                return config.Dora(self.rank, ALPHA)
            case "vera":
                return config.Vera(self.rank)
        return config.NoAdapter()

    @property
    def scale(self) -> float:
        """What the product of both matrices is multiplied by: a number that the program is given."""
        return scale_of(self.adapter) if isinstance(self.adapter, config.Lora | config.Dora) else 1.0


@dataclass(frozen=True)
class Found:
    """What a lane came to."""

    loss: float
    """Of held-out text, nats a token."""
    gradient: float
    """Length of the first one."""
    update: float
    """|new W - W| / |W| over all weights."""


# --- one shape for all ranks -------------------------------------------------------------------------------


def padded(weight: Weight, rank: int) -> Weight:
    """The adapter with zeros up to a larger rank, and without its scale, which `scaled` brings back.

    Zeros stay: of a column of `a` that is zero the row of `b` has no gradient, and the other way around.
    """
    match weight:
        case LoRA():
            row = -1 - len(weight.axes) + weight.inputs
            return weight.replace(a=_up_to(weight.a, rank, -1), b=_up_to(weight.b, rank, row), scale=1.0)
        case VeRA():
            inputs, outputs = weight.sizes[: weight.inputs], weight.sizes[weight.inputs :]
            front = weight.inner.shape[:-1]
            a = _up_to(weight.shared.a(prod(inputs)), rank, -1)
            b = _up_to(weight.shared.b(prod(outputs)), rank, -2)
            given = Given(*(jnp.broadcast_to(one, (*front, *one.shape)) for one in (a, b)))
            return weight.replace(inner=_up_to(weight.inner, rank, -1), shared=given)
    return weight


def _up_to(x: Float[Array, "..."], size: int, axis: int) -> Float[Array, "..."]:
    axis %= x.ndim
    return jnp.pad(x, [(0, size - x.shape[axis] if i == axis else 0) for i in range(x.ndim)])


def scaled(own: PyTree, scale: Float[Array, ""]) -> PyTree:
    """The trained leaves with `b` times the scale: a (scale b) is scale (a b)."""
    return map_named(lambda name, leaf: scale * leaf if name.endswith(".b") else leaf, own)


def halves(base: Any, arm: Arm, rank: int) -> tuple[PyTree, PyTree]:
    """(trained, frozen) of a model that is to be adapted, padded to a rank."""
    model = adapted(base, arm.adapter, random.key(arm.seed, 0, "adapter"))
    model = map_weights(lambda _, weight: padded(weight, rank), model)
    return partition(model, is_trained(arm.adapter))


def size(base: Any, arm: Arm) -> int:
    """Trained numbers, without padding."""
    model = jax.eval_shape(lambda: adapted(base, arm.adapter, jax.random.key(0)))
    return sum(leaf.size for leaf in jax.tree.leaves(partition(model, is_trained(arm.adapter))[0]))


# --- one program for all lanes -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Text:
    """Batches in the order of the seeds and steps, and those that are held out; stacked."""

    train: Batch
    held_out: Batch


def lane(
    objective: Objective, call: Call, steps: int
) -> Callable[[dict[str, Array], tuple[PyTree, PyTree], dict[str, Any]], tuple[PyTree, dict[str, Array]]]:
    """Training of a lane from start to end, to be mapped: (numbers, both halves, what all share) -> results."""

    def totals(own: PyTree, rest: PyTree, scale: Array, batch: Batch) -> tuple[Array, Array]:
        model = combine(scaled(own, scale), rest)
        found, _ = objective.totals(model, batch, None, call, {})
        return found["cross_entropy"], objective.weights(batch)["cross_entropy"]

    def loss(own: PyTree, rest: PyTree, scale: Array, batch: Batch) -> Array:
        total, weight = totals(own, rest, scale, batch)
        return total / weight

    def train(numbers: dict[str, Array], both: tuple[PyTree, PyTree], shared: dict[str, Any]) -> tuple:
        own, rest = both
        schedule = config.Linear(numbers["rate"], warmup=WARMUP)
        optimizer = optimizers.build(config.AdamW(schedule, decay=0.0), steps)

        def step(carried: tuple[PyTree, PyTree], batch: Batch) -> tuple[tuple, Array]:
            own, moments = carried
            gradients = jax.grad(loss)(own, rest, numbers["scale"], batch)
            norm = optax.global_norm(gradients)
            gradients = jax.tree.map(lambda g: g * jnp.minimum(1.0, CLIP / (norm + 1e-6)), gradients)
            updates, moments = optimizer.update(gradients, moments, own)
            return (optax.apply_updates(own, updates), moments), norm

        batches = jax.tree.map(lambda leaf: leaf[numbers["seed"]], shared["train"])
        (own, _), norms = jax.lax.scan(step, (own, optimizer.init(own)), batches)
        found = jax.lax.map(lambda batch: totals(own, rest, numbers["scale"], batch), shared["held_out"])
        new = weights_of(combine(scaled(own, numbers["scale"]), rest))
        moved = sum(jnp.sum((new[name].dense() - old) ** 2) for name, old in shared["before"].items())
        whole = sum(jnp.sum(old**2) for old in shared["before"].values())
        result = {"loss": jnp.sum(found[0]) / jnp.sum(found[1]), "gradient": norms[0]}
        return own, result | {"update": jnp.sqrt(moved / whole)}

    return train


def together(
    base: Any, arms: Sequence[Arm], text: Text, objective: Objective, call: Call, rank: int = max(RANKS)
) -> tuple[list[PyTree], list[Found]]:
    """(Trained leaves, what came out) of lanes of one method, all in one program on all devices."""
    lanes = Lanes.of(len(arms), jax.devices())
    numbers = [
        {"rate": np.float32(arm.rate), "scale": np.float32(arm.scale), "seed": np.int32(arm.seed)} for arm in arms
    ]
    before = {name: weight.dense() for name, weight in weights_of(base).items() if "blocks." in name}
    shared = lanes.share({"train": text.train, "held_out": text.held_out, "before": before})
    given = lanes.stack(numbers), lanes.stack([halves(base, arm, rank) for arm in arms])
    steps = text.train.targets.shape[1]
    program = jax.jit(lanes.map(lane(objective, call, steps), shared=True))
    own, results = program(*given, shared)
    found = [Found(**{name: float(value) for name, value in one.items()}) for one in lanes.split(results)]
    return lanes.split(own), found


def untouched(base: Any, text: Text, objective: Objective, call: Call) -> float:
    """The loss of held-out text before anything is trained."""
    count = text.held_out.targets.shape[0]
    batches = (jax.tree.map(lambda leaf, i=i: leaf[i], text.held_out) for i in range(count))
    return small.Subject(base, call, None, objective, tuple(batches)).loss(base)


# --- text --------------------------------------------------------------------------------------------------


def write_text(folder: Path) -> dict[str, str]:
    """Python's own documents in two files, by what they are."""
    found: dict[str, list[str]] = {part: [] for part in PARTS}
    for document in documents(config.PythonText()):
        for part, beginnings in PARTS.items():
            if document.name.startswith(beginnings):
                found[part].append(json.dumps({"text": document.raw.decode(errors="replace")}))
    folder.mkdir(parents=True, exist_ok=True)
    paths = {part: folder / f"{part}.jsonl" for part in PARTS}
    for part, path in paths.items():
        write_atomically(path, "\n".join(found[part]) + "\n")
    return {part: str(path) for part, path in paths.items()}


def before(path: str, steps: int) -> config.Experiment:
    """Pretraining on the first part."""
    data = config.Corpus(config.TextFiles((path,)), held_out=100_000)
    return dataclasses.replace(small.base(0, steps), name="small-sources", data=data)


def read(run: str, theirs: config.Experiment, path: str, seeds: int, steps: int) -> Text:
    """The other part's batches, half as large as those of pretraining."""
    experiment = dataclasses.replace(
        theirs,
        data=config.Corpus(config.TextFiles((path,)), held_out=50_000),
        tokenizer=kept(theirs.tokenizer, Path(run) / "tokenizer"),
        train=dataclasses.replace(theirs.train, batch=4),
    )
    prepared = prepared_data(experiment, print)

    def rows(seed: int) -> Any:
        return rows_of(
            dataclasses.replace(experiment, train=dataclasses.replace(experiment.train, seed=seed)), prepared
        )

    def stacked(trees: Any) -> Any:
        return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)

    train = stacked([stacked([as_batch(rows(seed)[0].batch(i)) for i in range(steps)]) for seed in range(seeds)])
    held_out = rows(0)[1]
    return Text(train, stacked([as_batch(held_out.batch(i)) for i in range(held_out.steps)]))


# --- what came out -----------------------------------------------------------------------------------------

Results = dict[Arm, Found]


def best(results: Results, method: str, rank: int) -> list[tuple[Arm, Found]]:
    """Of a method and a rank the seeds of the rate with the least mean loss of held-out text."""
    own = {arm: found for arm, found in results.items() if (arm.method, arm.rank) == (method, rank)}
    means = {
        rate: np.mean([one.loss for arm, one in own.items() if arm.rate == rate])
        for rate in dict.fromkeys(arm.rate for arm in own)
    }
    rate = min(means, key=means.get)
    return sorted(((arm, one) for arm, one in own.items() if arm.rate == rate), key=lambda pair: pair[0].seed)


def lines(results: Results, sizes: dict[tuple[str, int], int], ranks: Sequence[int]) -> list[tuple[str, ...]]:
    """A line for each method of a rank, compared with LoRA of that rank."""
    written = []
    for rank in ranks:
        chosen = {name: best(results, name, rank) for name in METHODS} | {FULL: best(results, FULL, 0)}
        losses = {name: np.array([found.loss for _, found in some]) for name, some in chosen.items()}
        verdicts = small.judged(losses, "lora")
        for name, some in chosen.items():
            arm = some[0][0]
            own = (str(rank), name, f"{sizes[name, arm.rank]:,}", f"{arm.rate:g}", f"{losses[name].mean():.4f}")
            written.append((*own, *small.cells(verdicts.get(name))))
    return written


def stable(results: Results, ranks: Sequence[int], rate: float) -> list[tuple[str, ...]]:
    """First gradients and whole updates by rank, both scalings at one rate: rsLoRA's theorem 3.2."""

    def mean(method: str, rank: int, what: str) -> str:
        own = (one for arm, one in results.items() if (arm.method, arm.rank, arm.rate) == (method, rank, rate))
        return f"{np.mean([getattr(one, what) for one in own]):.4f}"

    return [
        (str(rank), *(mean(method, rank, what) for what in ("gradient", "update") for method in METHODS[:2]))
        for rank in ranks
    ]


def draw(figure: Any, results: Results, sizes: dict[tuple[str, int], int], ranks: Sequence[int]) -> None:
    """Losses by trained numbers: means, with the least and the largest of the seeds."""
    axes = figure.subplots()
    for place, name in enumerate((*METHODS, FULL)):
        own = [best(results, name, rank) for rank in (ranks if name != FULL else (0,))]
        x = [sizes[name, some[0][0].rank] for some in own]
        spread = (small.limits(np.array([found.loss for _, found in some])) for some in own)
        middle, low, high = zip(*spread, strict=True)
        axes.plot(x, middle, "-o", color=f"C{place}", label=name, markersize=3, linewidth=1)
        axes.vlines(x, low, high, color=f"C{place}", linewidth=1)
    axes.set(xscale="log", xlabel="trained numbers", ylabel="held-out loss (nats)")
    axes.legend(frameon=False)


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--ranks", type=int, nargs="+", default=list(RANKS))
    parser.add_argument("--rates", type=float, nargs="+", default=list(RATES))
    parser.add_argument("--steps", type=int, default=STEPS, help="of adapting")
    parser.add_argument("--base-steps", type=int, default=small.STEPS, help="of pretraining")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where runs are kept")
    parser.add_argument("--plot", type=Path, metavar="FILE.png")
    asked = parser.parse_args()
    environment.prepare(sys.argv[1:], runs=len(asked.rates))
    began, paths = time.monotonic(), write_text(asked.runs / "text")
    theirs = before(paths["sources"], asked.base_steps)
    (run,) = small.trained([theirs], asked.runs, small.data_of(theirs))
    base, _, _ = load_run(run)
    text = read(run, theirs, paths["documentation"], asked.seeds, asked.steps)
    call, objective = Call(single_device(), layers="unroll"), make_objective(theirs)
    print(f"before adapting {untouched(base, text, objective, call):.4f}", flush=True)
    results, sizes = {}, {}
    for method in (*METHODS, FULL):
        ranks = asked.ranks if method != FULL else [0]
        arms = [Arm(method, *one) for one in itertools.product(ranks, asked.rates, range(asked.seeds))]
        start = time.monotonic()
        _, found = together(base, arms, text, objective, call, max(asked.ranks))
        results |= dict(zip(arms, found, strict=True))
        sizes |= {(method, arm.rank): size(base, arm) for arm in arms}
        print(f"{method}: {len(arms)} lanes in one program, {time.monotonic() - start:.0f} s", flush=True)
    print(table(("rank", "method", "trained", "rate", "loss", *small.JUDGED), lines(results, sizes, asked.ranks)))
    rate = asked.rates[len(asked.rates) // 2]
    header = ("rank", "gradient a/r", "gradient a/sqrt r", "update a/r", "update a/sqrt r")
    print(f"\nat the rate {rate:g}\n{table(header, stable(results, asked.ranks, rate))}")
    if asked.plot:
        small.save(asked.plot, lambda figure: draw(figure, results, sizes, asked.ranks), (5, 3.6))
    print(f"\n{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
