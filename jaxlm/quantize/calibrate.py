"""Calibration: what reaches each weight when a model reads some rows, layer by layer.

The residual stream of all rows goes through one layer at a time. A method replaces weights of the layer, and the
layer as it then is makes the stream of the next: every weight is fitted to the inputs that it will have, made by
weights that are rounded already. Within a layer what comes first is replaced first (the "true sequential" order of
the code released with GPTQ). One layer is one program, which all layers of its kind share.

The last quarter of the rows is checked: nothing is fitted to it, and what a weight has lost is said of it. Of a
matrix with many inputs and few tokens, the error on the tokens that it was fitted to says little.

Activations leave a layer as taps (`Call.taps`) named after the weights they go into: "attention.query" for query,
key and value, "attention.out", "mlp.up" for gate and up, "mlp.down". Experts of a mixture are no weights
(`layers.projection.Weight`): every method passes them by.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from jaxlm.config.errors import UsageError
from jaxlm.layers.block import Context
from jaxlm.layers.contracts import Call, Tokens
from jaxlm.layers.projection import Dense, Weight
from jaxlm.layers.stack import Layer, Stack
from jaxlm.models.decoder import Decoder
from jaxlm.models.encoder import Encoder
from jaxlm.models.encoder_decoder import EncoderDecoder
from jaxlm.models.rwkv.model import Rwkv
from jaxlm.quantize.moments import Statistic
from jaxlm.quantize.readers import by_tap

Found = TypeVar("Found", bound=Statistic)
Say = Callable[[str], None]
Treat = Callable[["Place"], Layer]

FEWEST = 64
"""Tokens that any statistic needs."""


@dataclass(frozen=True)
class Stream:
    """The residual stream before a layer, some rows after the others, and what layers are given with it."""

    hidden: tuple[PyTree, ...]
    contexts: tuple[Any, ...]


@dataclass(frozen=True)
class Place:
    """A layer, where it is, and what reaches it."""

    name: str
    """In the model's names, without the number of a stacked layer: "blocks.period.0"."""
    number: int
    """From the bottom, counted from 0."""
    layer: Any
    stream: Stream
    call: Call
    say: Say

    def holding(self, layer: Any) -> Place:
        """The same place with another layer."""
        return dataclasses.replace(self, layer=layer)

    def full(self, name: str) -> str:
        """A name within the layer in the model's names, as rules know it."""
        return f"{self.name}.{name}"

    def taps(self) -> dict[str, tuple[str, ...]]:
        """Weights by the tap of what they are applied to, as far as there is one."""
        found = by_tap(self.layer)
        known = _known(self.layer, self.stream.hidden[0], self.stream.contexts[0], self.call, tuple(found))
        return {tap: found[tap] for tap in found if tap in known}

    @property
    def fitted(self) -> slice:
        """The pieces of the rows that weights are fitted to."""
        return slice(0, len(self.stream.hidden) - _checked(len(self.stream.hidden)))

    @property
    def checked(self) -> slice:
        """The pieces that nothing is fitted to; of a single piece, that one."""
        return slice(self.fitted.stop % len(self.stream.hidden), None)

    def measured(self, tap: str, statistic: type[Found], *more: Any, pieces: slice = slice(None)) -> Found:
        """A statistic of one tap over some pieces of the rows, or all; `more` is handed to it."""
        call, total = dataclasses.replace(self.call, taps=(tap,)), None
        for x, context in zip(self.stream.hidden[pieces], self.stream.contexts[pieces], strict=True):
            one = _measured(self.layer, x, context, more, call, statistic)
            total = one if total is None else total.joined(one)
        return total


def each_layer(model: Any, rows: Tokens, call: Call, treat: Treat, *, batch: int = 4, say: Say = print) -> Any:
    """The model with each layer replaced by treat(place), from the bottom up.

    `rows` are of any length and may hold padding (segment 0), which enters no statistic; at most `batch` of them
    are computed at once. Raises UsageError for models that this cannot be done to, and for too few tokens.
    """
    stack = _stack(model, rows)
    count = int(jnp.sum(rows.segments > 0))
    if count < FEWEST:
        raise UsageError(
            f"calibration: {count} tokens beside padding are too few to say how large activations are; give it "
            f"{FEWEST} or more (128 rows of 512 are common)"
        )
    stream = _entering(model, rows, call, batch)
    replaced: dict[str, list[Any]] = {}
    layers = zip(stack.places(), stack.layers(), strict=True)
    for number, ((path, _), layer) in enumerate(layers):
        new = treat(Place(f"blocks.{path}", number, layer, stream, call, say))
        replaced.setdefault(path, []).append(new)
        if number + 1 < stack.depth:
            onward = (_onward(new, x, c, call) for x, c in zip(stream.hidden, stream.contexts, strict=True))
            stream = Stream(tuple(onward), stream.contexts)
    return model.replace(blocks=restacked(stack, replaced))


def reported(layer: Layer, x: PyTree, context: Any, call: Call, tap: str) -> Float[Array, "row pos ..."]:
    """One tap of a layer."""
    return _taps(layer, x, context, dataclasses.replace(call, taps=(tap,)))[tap]


def _taps(layer: Layer, x: PyTree, context: Any, call: Call) -> dict[str, Array]:
    return layer(x, context, call, None, None)[2].taps


def restacked(stack: Stack, replaced: dict[str, list[Any]]) -> Stack:
    """Layers, in order by their path within a stack (`Stack.places`), stacked as they were."""

    def part(name: str, old: tuple) -> tuple:
        layers = [replaced[f"{name}.{index}"] for index in range(len(old))]
        if name != "period":
            return tuple(one for (one,) in layers)
        return tuple(jax.tree.map(lambda *leaves: jnp.stack(leaves), *one) for one in layers)

    return stack.replace(**{name: part(name, getattr(stack, name)) for name in ("prefix", "period", "suffix")})


def fitted_tokens(rows: Tokens, batch: int) -> int:
    """Tokens beside padding that weights are fitted to."""
    size = _piece(rows, batch)
    count = rows.ids.shape[0] // size
    return int(jnp.sum(rows.segments[: size * (count - _checked(count))] > 0))


def _checked(pieces: int) -> int:
    """How many of so many pieces are checked."""
    return -(-pieces // 4) if pieces > 1 else 0


def _piece(rows: Tokens, batch: int) -> int:
    """Rows of a piece: as many as are computed at once, and divide all rows."""
    count = rows.ids.shape[0]
    return max(n for n in range(1, min(batch, count) + 1) if count % n == 0)


def real(context: Any) -> Bool[Array, "row pos"]:
    """Which tokens of a layer's context are no padding."""
    tokens = context.joined if isinstance(context, Context) else context
    return tokens.segments > 0


def matrix(weight: Weight) -> Float[Array, "inputs outputs"]:
    """A weight of one layer as the grid takes it, float32."""
    kernel = weight.dense().astype(jnp.float32)
    return kernel.reshape(prod(kernel.shape[: weight.inputs]), -1)


def like(weight: Dense, matrix: Float[Array, "inputs outputs"]) -> Dense:
    """The weight with other numbers, in its own format."""
    return weight.replace(kernel=matrix.reshape(weight.kernel.shape).astype(weight.kernel.dtype))


def plain(place: Place, name: str, weight: Weight) -> Dense:
    """The weight, which must be a matrix. Raises UsageError for one in another form."""
    if not isinstance(weight, Dense):
        raise UsageError(
            f"{place.full(name)} is {type(weight).__name__}: a method that looks at activations takes matrices; "
            "merge adapters first, and quantize once"
        )
    return weight


def _stack(model: Any, rows: Tokens) -> Stack:
    """The layers. Raises UsageError for models whose layers cannot be gone through one by one."""
    if isinstance(model, EncoderDecoder):
        raise UsageError("calibration goes through one stack: an encoder_decoder has two; round it to nearest")
    if not isinstance(model, Decoder | Encoder | Rwkv):
        raise UsageError(f"calibration knows decoders, encoders and rwkv, no {type(model).__name__}")
    if model.blocks.shared:
        raise UsageError("model.block is Shared: one weight has the inputs of all layers; round it to nearest")
    if rows.ids.ndim != 2 or not rows.ids.size:
        raise UsageError(f"calibration: rows of tokens have the shape [row, pos], these {rows.ids.shape}")
    return model.blocks


def _same(x: PyTree) -> PyTree:
    return x


def _entering(model: Any, rows: Tokens, call: Call, batch: int) -> Stream:
    """What the first layer is given: the model without layers and last norm."""
    count, size = rows.ids.shape[0], _piece(rows, batch)
    bare = model.replace(blocks=Stack((), (), (), 0), norm=_same)
    if isinstance(model, Decoder):
        bare = bare.replace(ahead=())
    pieces = [jax.tree.map(lambda leaf, i=i: leaf[i : i + size], rows) for i in range(0, count, size)]
    hidden = tuple(bare(piece, call).hidden for piece in pieces)
    return Stream(hidden, tuple(_context(model, piece, call) for piece in pieces))


def _context(model: Any, tokens: Tokens, call: Call) -> Any:
    if isinstance(model, Rwkv):
        return call.layout.enter(tokens)
    return Context.of(tokens, model.position, call)


@functools.partial(jax.jit, static_argnames=("call",))
def _onward(layer: Layer, x: PyTree, context: Any, call: Call) -> PyTree:
    return layer(x, context, call, None, None)[0]


@functools.partial(jax.jit, static_argnames=("call", "statistic"))
def _measured(
    layer: Layer, x: PyTree, context: Any, more: tuple, call: Call, statistic: type[Statistic]
) -> Statistic:
    (tap,) = call.taps
    found = reported(layer, x, context, call, tap)
    rows, length = found.shape[:2]
    return statistic.of(found.reshape(rows * length, -1), real(context).reshape(-1), *more)


def _known(layer: Layer, x: PyTree, context: Any, call: Call, names: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the names that a layer has taps of."""
    call = dataclasses.replace(call, taps=names)
    report = jax.eval_shape(lambda *given: _taps(*given, call), layer, x, context)
    return tuple(report)
