"""Everything that training changes or carries."""

from __future__ import annotations

from typing import Any

import jax
import optax
from flax import struct
from jaxtyping import Array, Int, PyTree

from jaxlm.layers.axes import shardings
from jaxlm.layers.names import combine
from jaxlm.parallel.layout import Layout


@struct.dataclass
class State:
    """A training run between two steps. Models are split by None leaves: see `layers.names.partition`."""

    step: Int[Array, ""]
    """Steps taken."""
    model: PyTree
    """The trained half of the model."""
    frozen: dict[str, Any]
    """What is not trained: the model's other half as "model", and whole models by role (teacher, reference)."""
    optimizer: PyTree
    ema: PyTree | None = None
    """Exponential moving average of `model`."""

    def saved(self) -> State:
        """What a checkpoint holds: `frozen` is made again from where it began (`train.initial`)."""
        return self.replace(frozen={})

    def whole(self) -> Any:
        """The model, its halves combined."""
        return combine(self.model, self.frozen["model"])


def place(state: State, optimizer: optax.GradientTransformation, layout: Layout) -> State:
    """The sharding of each leaf of a (possibly abstract) state, as a state.

    Moments with a parameter's shape live where the parameter does; everything else is replicated.
    """
    whole = jax.tree.map(lambda leaf, place: (leaf, place), state.whole(), shardings(state.whole(), layout))

    def half(model: PyTree, whole: PyTree) -> PyTree:
        """The places of the leaves that this half holds."""
        return jax.tree.map(
            lambda leaf, pair: None if leaf is None else pair[1], model, whole, is_leaf=lambda leaf: leaf is None
        )

    trained = half(state.model, whole)
    replicated = layout.replicated()

    def masked(node: Any) -> bool:
        """Whether it stands for a parameter that another part of the optimizer takes (Muon's AdamW)."""
        return isinstance(node, optax.MaskedNode)

    def moment(leaf: Any, parameter: Any, place: Any) -> Any:
        if masked(leaf):
            return leaf
        return place if leaf.shape == parameter.shape else replicated

    moments = optax.tree.map_params(
        optimizer,
        moment,
        state.optimizer,
        state.model,
        trained,
        transform_non_params=lambda _: replicated,
        is_leaf=masked,
    )
    frozen = {
        role: half(model, whole) if role == "model" else shardings(model, layout)
        for role, model in state.frozen.items()
    }
    return State(replicated, trained, frozen, moments, None if state.ema is None else trained)
