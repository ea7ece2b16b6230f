"""Optimizers from their configs: optax's own, told by name which parameters decay and which are matrices.

Gradients are clipped in the training step, not here. Second moments are float32 whatever the parameters are.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax.contrib import MuonDimensionNumbers

from jaxlm.config.errors import UsageError
from jaxlm.config.optimizer import Adafactor, AdamW, Lion, Muon, Optimizer
from jaxlm.config.precision import Precision
from jaxlm.layers.names import map_named
from jaxlm.layers.numbers import matters
from jaxlm.train import schedules


def build(
    optimizer: Optimizer, steps: int, precision: Precision = Precision(), *, hidden: float = 1.0
) -> optax.GradientTransformation:
    """The optimizer of a run of `steps`; updates are float32 and already carry the learning rate's sign.

    `precision.optimizer` is the dtype of first moments (Adafactor has none). `hidden` multiplies the learning rate
    of the layers' matrices, but not their decay (`config.MuP`). Raises UsageError for one that is not AdamW's.
    """
    if hidden != 1.0 and not isinstance(optimizer, AdamW):
        raise UsageError(f"model.parametrization is mup: {type(optimizer).__name__} has no rule for it; use adamw")
    rate = learning_rate(optimizer, steps)
    moments = jnp.dtype(precision.optimizer)
    match optimizer:
        case AdamW(b1=b1, b2=b2, epsilon=epsilon, decay=decay):
            inner = optax.adamw(rate, b1, b2, epsilon, mu_dtype=moments, weight_decay=decay, mask=decay_mask)
            if hidden != 1.0:  # what optax.adamw is made of, and one part more
                inner = optax.chain(
                    optax.scale_by_adam(b1, b2, epsilon, mu_dtype=moments),
                    optax.masked(optax.scale(hidden), matrices),
                    optax.add_decayed_weights(decay, decay_mask),
                    optax.scale_by_learning_rate(rate),
                )
        case Lion(b1=b1, b2=b2, decay=decay):
            inner = optax.lion(rate, b1, b2, mu_dtype=moments, weight_decay=decay, mask=decay_mask)
        case Adafactor(b2=b2, decay=decay):
            # optax adds Adafactor's decay after the learning rate; everywhere else it is multiplied by it.
            inner = optax.adafactor(
                rate,
                decay_rate=b2,
                weight_decay_rate=(lambda step: decay * rate(step)) if matters(decay) else None,
                weight_decay_mask=decay_mask,
            )
        case Muon(momentum=momentum, iterations=iterations, decay=decay, adam=adam):
            inner = optax.contrib.muon(
                rate,
                ns_steps=iterations,
                beta=momentum,
                weight_decay=decay,
                mu_dtype=moments,
                adam_b2=0.95,
                adam_learning_rate=lambda step: adam * rate(step),
                muon_weight_dimension_numbers=lambda tree: map_named(matrix, tree),
            )
    return _in_float32(inner)


def learning_rate(optimizer: Optimizer, steps: int) -> schedules.Value:
    """The rate of update number `step`, counted from 0; for Muon, that of the matrices."""
    return schedules.build(optimizer.schedule, steps)


def decays(name: str) -> bool:
    """Whether weight decay applies: to kernels, embeddings among them; not to norms, biases, adapters and the
    narrow matrices in which a base is adapted to each token (RWKV-6 and 7).
    """
    *path, last = name.split(".")
    return last == "kernel" and not (path and path[-1] in ("narrow", "wide"))


def decay_mask(parameters: Any) -> Any:
    """The same tree of booleans: where weight decay applies."""
    return map_named(lambda name, _: decays(name), parameters)


def matrices(parameters: Any) -> Any:
    """The same tree of booleans: where matrices are that widen on both sides, those of layers."""
    return map_named(lambda name, leaf: matrix(name, leaf) is not None, parameters)


def matrix(name: str, leaf: Any) -> MuonDimensionNumbers | None:
    """Input and output axes of a block's matrix; None for what is none (embeddings, head, norms, biases).

    Axes count from the end, so those in front (layers stacked, experts) are orthogonalized one by one.
    """
    *path, last = name.split(".")
    if last != "kernel" or not {"blocks", "ahead"} & set(path):
        return None
    heads = any(word in ("attention", "cross", "time") for word in path)
    match path[-1]:
        case "query" | "key" | "value" | "receptance" | "gate" if heads:  # embed -> (heads, head)
            axes = MuonDimensionNumbers((-3,), (-2, -1))
        case "out" if heads:  # (heads, head) -> embed
            axes = MuonDimensionNumbers((-3, -2), (-1,))
        case "up" | "gate" | "down" | "key" | "value" | "receptance" | "channel_receptance" | "out":
            axes = MuonDimensionNumbers((-2,), (-1,))
        case _:
            return None
    rank = len(axes.reduction_axis) + len(axes.output_axis)
    if leaf.ndim < rank:
        raise ValueError(f"{name} of shape {leaf.shape} has fewer than the {rank} axes its name promises")
    return axes


def _in_float32(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """The same optimizer on float32 copies, so that second moments of bfloat16 parameters are not rounded.

    optax gives second moments the parameters' dtype, and bfloat16 cannot hold their updates at the usual b2.
    """

    def cast(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), tree)

    def init(parameters: Any) -> Any:
        return inner.init(cast(parameters))

    def update(gradients: Any, state: Any, parameters: Any) -> tuple[Any, Any]:
        return inner.update(cast(gradients), state, cast(parameters))

    return optax.GradientTransformation(init, update)
