"""Several adapters of one kind at once: to train them in one program, or to serve them over one base.

To train, stack what `partition` splits off and map over it, with the frozen half left as it is:
`jax.vmap(step, (0, None))(together(adapters), frozen)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int

from jaxlm.adapters.dora import DoRA
from jaxlm.adapters.over import Over
from jaxlm.config.errors import UsageError
from jaxlm.layers.contracts import Call, RowKeys
from jaxlm.layers.names import combine, flatten
from jaxlm.layers.products import trailing
from jaxlm.layers.projection import Weight
from jaxlm.layers.weights import map_weights, weights_of
from jaxlm.parallel.layout import Axes

Tree = TypeVar("Tree")


def together(trees: Sequence[Tree]) -> Tree:
    """Leaves of trees of one structure stacked along a new first dimension, to be mapped over."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


@struct.dataclass
class Several:
    """Adapters over one base; each row of tokens chooses its own by `Tokens.adapters`, a negative number none.

    A number that no adapter has gives NaN: a program cannot raise, and no other row's adapter is taken for it.
    """

    one: Weight
    """An adapter whose own leaves have a dimension over adapters before those that their axes name. Behind the last
    adapter lies one that changes nothing.
    """
    count: int = struct.field(pytree_node=False)

    @property
    def axes(self) -> Axes:
        """The base's."""
        return self.one.axes

    @property
    def inputs(self) -> int:
        """The base's."""
        return self.one.inputs

    @property
    def bias(self) -> None:
        """None: adapters may change it, so `dot` adds it."""
        return None

    def dot(
        self,
        x: Float[Array, "..."],
        spec: str,
        call: Call,
        *,
        key: RowKeys | None = None,
        adapters: Int[Array, "row"] | None = None,
    ) -> Float[Array, "..."]:
        """Each row through its adapter, with the bias. Raises UsageError where rows have not chosen."""
        if adapters is None:
            raise UsageError(
                f"this model holds {self.count} adapters: say in Tokens.adapters which each row uses, from 0 to "
                f"{self.count - 1}, or -1 for none; weights that rows do not reach cannot have several"
            )
        chosen = jnp.where(adapters < 0, self.count, adapters)
        # Numbers too large by more than the neutral adapter are filled; the one behind it must be too.
        chosen = jnp.where(adapters == self.count, self.count + 1, chosen)
        own = {name: jnp.take(leaf, chosen, axis=0, mode="fill", fill_value=jnp.nan) for name, leaf in self._own()}

        def of_a_row(own: dict[str, Array], x: Array, key: Array | None) -> Array:
            weight = self.one.replace(**own)
            y = weight.dot(x[None], spec, call, key=None if key is None else key[None])
            if weight.bias is not None:
                y = y + trailing(call.layout.gather(weight.bias.astype(y.dtype), self.axes[self.inputs :]), y)
            return y[0]

        return jax.vmap(of_a_row)(own, x, key)

    def _own(self) -> list[tuple[str, Array]]:
        names = [name for name in self.one.leaf_axes() if getattr(self.one, name) is not None]
        return [(name, getattr(self.one, name)) for name in names]

    def dense(self) -> Float[Array, "..."]:
        """Raises UsageError: it is not one matrix."""
        raise UsageError(f"a weight with {self.count} adapters is not one matrix: use the model with one of them")

    def leaf_axes(self) -> dict[str, Axes]:
        """It has no leaves of its own."""
        return {}


def several(model: Tree, adapters: Sequence[Any]) -> Tree:
    """A model with all of these adapters at once, of which each row of tokens chooses one; see `Several`.

    `model` has an adapter of the same kind, which is not used; `adapters` are trained leaves, each as
    `partition(model, trained(adapter))[0]` has them. Not to be trained: lengths of DoRA are settled.

    Raises UsageError for none, for adapters of different kinds or sizes, and for leaves that belong to no adapter's
    weight, such as a classifier or a bias, which all rows share.
    """
    if not adapters:
        raise UsageError("several: give at least one adapter")
    names = flatten(adapters[0]).keys()
    for number, tree in enumerate(adapters):
        if jax.tree.map(jnp.shape, tree) != jax.tree.map(jnp.shape, adapters[0]):
            raise UsageError(f"several: adapter {number} is of another kind or size than adapter 0")
    held = [_own_names(name, weight) for name, weight in weights_of(model).items() if isinstance(weight, Over)]
    if alone := sorted(names - set().union(*held)):
        raise UsageError(f"several: rows cannot choose among leaves that no adapter holds, such as {alone[0]}")
    rest = _without(model, names)
    models = [weights_of(combine(tree, rest)) for tree in adapters]

    def one(name: str, weight: Weight) -> Weight:
        if not isinstance(weight, Over):
            return weight
        each = [_settled(weights[name]) for weights in models]
        return _joined([*each, each[0].neutral()], len(each))

    return map_weights(one, model)


def _own_names(name: str, weight: Weight) -> set[str]:
    return {f"{name}.{leaf}" for leaf in weight.leaf_axes()}


def _without(model: Tree, names: Any) -> Tree:
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: None if jax.tree_util.keystr(path, simple=True, separator=".") in names else leaf, model
    )


def _settled(weight: Weight) -> Weight:
    return weight.settled() if isinstance(weight, DoRA) else weight


def _joined(each: list[Weight], count: int) -> Several:
    first = each[0]
    stacked = jax.eval_shape(first.base.dense).ndim - len(first.axes)
    own = {
        name: jnp.stack([getattr(weight, name) for weight in each], axis=stacked)
        for name in first.leaf_axes()
        if getattr(first, name) is not None
    }
    return Several(first.replace(**own), count)
