"""GPTQ: codes chosen input by input, the rest of a matrix making up for what is lost (arXiv:2210.17323).

W [inputs, outputs] is applied to activations x. H = 2 mean(x x^T), with damp times the mean of its diagonal added,
and U is the upper triangle with H^-1 = U^T U. For one input i after the other (columns in the paper, algorithm 1):
q_i = the value of the code nearest to w_i, e_i = (w_i - q_i) / U_ii, and W_j -= U_ij e_i for the inputs j that
follow. These updates are made at once within a block of inputs, and once a block for the others (section 3.3).

Inputs come in their order, the scales of a group fitted to its inputs as they are when its block begins (so the
released code); or by falling H_ii ("act-order" there), the scales of all groups fitted beforehand, so that nothing
has to be permuted when the model runs. A scale that many groups depend on (`Nf4(double=True)`) is fitted beforehand
too. An input that no token has (H_ii = 0) is rounded to nearest.

The paper's damping is 0.01. With few tokens for the inputs of a matrix that is too little: fitted to 4,096 of them,
a projection of SmolLM2 with 1,536 inputs lost more on other text than if rounded to nearest, and least with 1.
Unless it is given, the damping is chosen of DAMPS by rows that nothing is fitted to.
"""

from __future__ import annotations

import dataclasses
import functools
from math import prod
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int

from jaxlm.config.errors import Failure, UsageError
from jaxlm.config.quantization import Format, Integers, Rounded, groups
from jaxlm.layers.contracts import Call, Tokens
from jaxlm.layers.weights import weights_of
from jaxlm.quantize import grid
from jaxlm.quantize.calibrate import Place, Say, fitted_tokens
from jaxlm.quantize.grid import Scales
from jaxlm.quantize.moments import Gram, squared_error
from jaxlm.quantize.rounding import Choose, Chosen, Error, round_layers
from jaxlm.quantize.rules import format_of

Matrix = Float[Array, "inputs outputs"]
Square = Float[Array, "inputs inputs"]
Order = Literal["given", "activations"]
BLOCK = 128
DAMP = 0.01
DAMPS = (0.01, 0.1, 1.0)
MOST = 10.0
"""Of the mean of H's diagonal: with more than this, H says nothing any more."""


def hessian(gram: Square) -> Square:
    """2 mean(x x^T), with ones for inputs that no token has."""
    dead = jnp.diagonal(gram) == 0
    return 2 * gram + jnp.diag(jnp.where(dead, 1.0, 0.0))


@jax.jit
def inverse_root(gram: Square, damp: Float[Array, ""]) -> Square:
    """The upper U with H^-1 = U^T U; not finite where H is not positive definite in float32.

    Of H = R R^T with R upper, U is the inverse of R: one Cholesky decomposition, and H^-1 is never formed.
    """
    h = hessian(gram)
    alive = jnp.diagonal(gram) > 0
    mean = jnp.sum(jnp.where(alive, jnp.diagonal(h), 0.0)) / jnp.maximum(jnp.sum(alive), 1)
    h = h + damp * mean * jnp.eye(len(h), dtype=h.dtype)
    upper = jnp.linalg.cholesky(h[::-1, ::-1])[::-1, ::-1]
    return jax.scipy.linalg.solve_triangular(upper, jnp.eye(len(h), dtype=h.dtype), lower=False)


def damped(gram: Square, damp: float = DAMP) -> tuple[Square, float]:
    """`inverse_root` with the least of damp, 2 damp, 4 damp ... that makes H positive definite, and that damping.

    Raises Failure where none does: the activations are not finite.
    """
    start = damp
    while damp <= MOST:
        root = inverse_root(gram, jnp.float32(damp))
        if bool(jnp.all(jnp.isfinite(root)) & jnp.all(jnp.diagonal(root) > 0)):
            return root, damp
        damp = 2 * damp if damp else DAMP / 100
    raise Failure(
        f"GPTQ: the products of activations have no Cholesky decomposition with a damping of {start:g} to {MOST:g} "
        "of their mean: are all activations finite?"
    )


@struct.dataclass
class _State:
    """What the loop over blocks carries: the matrix, its codes and the scales so far."""

    matrix: Matrix
    codes: Int[Array, "inputs outputs"]
    scales: Scales


def choose(
    matrix: Matrix, gram: Square, format: Format, *, damp: float = DAMP, order: Order = "given", block: int = BLOCK
) -> tuple[Int[Array, "inputs outputs"], Scales]:
    """Codes and scales of one matrix, from the mean of x x^T over tokens.

    Raises UsageError for groups that do not divide the inputs, and Failure as `damped` does.
    """
    places = _places(gram, order)
    root, _ = damped(gram[places][:, places], damp)
    return chosen(matrix, root, places, format, order, block)


def _places(gram: Square, order: Order) -> Int[Array, "inputs"]:
    """The inputs in the order in which they are rounded."""
    if order == "given":
        return jnp.arange(len(gram))
    return jnp.argsort(-jnp.diagonal(gram), stable=True)


@functools.partial(jax.jit, static_argnames=("format", "order", "block"))
def chosen(
    matrix: Matrix,
    root: Square,
    places: Int[Array, "inputs"],
    format: Format,
    order: Order = "given",
    block: int = BLOCK,
) -> tuple[Int[Array, "inputs outputs"], Scales]:
    """Codes and scales, with the `inverse_root` of the inputs in the order of `places`.

    Every output is by itself but for scales that outputs share: outputs may be mapped over, or spread over devices.
    """
    inputs, outputs = matrix.shape
    count = groups(format, inputs)
    group = inputs // count
    late = order == "given" and isinstance(format, Integers) and count > 1
    block = _block(block, group, late)
    first = grid.fit(matrix, format)
    padding = -inputs % block
    state = _State(
        jnp.pad(matrix[places], ((0, padding), (0, 0))),
        jnp.zeros((inputs + padding, outputs), jnp.int32),
        first,
    )
    root = jnp.pad(root, ((0, padding), (0, padding))) + jnp.diag((jnp.arange(inputs + padding) >= inputs) * 1.0)
    of = jnp.pad(places // group, (0, padding))

    def one(number: Int[Array, ""], state: _State) -> _State:
        start = number * block
        if late:
            state = state.replace(scales=_refitted(state, start, format, group, block, inputs))
        return _block_rounded(state, root, of, start, format, block)

    state = jax.lax.fori_loop(0, (inputs + padding) // block, one, state)
    codes = jnp.zeros((inputs, outputs), jnp.int32).at[places].set(state.codes[:inputs])
    return codes, state.scales


def _block(block: int, group: int, late: bool) -> int:
    """The block's size: where scales are fitted on the way, whole groups in a block or whole blocks in a group."""
    if not late or block % group == 0 or group % block == 0:
        return block
    return group


def _refitted(state: _State, start: Array, format: Integers, group: int, block: int, inputs: int) -> Scales:
    """The scales with those of the groups that begin in a block fitted to the matrix as it is now."""
    span = max(group, block)
    # The last block may reach beyond the inputs: groups there are nobody's.
    reach = jnp.pad(state.matrix[:inputs], ((0, span), (0, 0)))
    piece = jax.lax.dynamic_slice_in_dim(reach, start, span)
    new = grid.fit(piece, dataclasses.replace(format, group=group))

    def put(old: Array | None, new: Array | None) -> Array | None:
        if old is None:
            return None
        padded = jnp.pad(old, ((0, len(new)), (0, 0)))
        put = jax.lax.dynamic_update_slice_in_dim(padded, new, start // group, 0)[: len(old)]
        return jnp.where(start % group == 0, put, old)

    return Scales(put(state.scales.scale, new.scale), put(state.scales.zero, new.zero))


def _block_rounded(
    state: _State, root: Square, of: Int[Array, "inputs"], start: Array, format: Format, block: int
) -> _State:
    """The codes of one block of inputs, and what they lose made up for by the inputs that follow."""
    outputs = state.matrix.shape[1]
    rows = jax.lax.dynamic_slice_in_dim(root, start, block)
    own = jax.lax.dynamic_slice_in_dim(rows, start, block, axis=1)
    inner = jax.lax.dynamic_slice_in_dim(state.matrix, start, block)
    group = jax.lax.dynamic_slice_in_dim(of, start, block)

    def one(i: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        inner, codes, lost = carry
        scales = _row(state.scales, group[i])
        code = grid.codes(inner[i][None], format, scales)
        error = (inner[i] - grid.values(code, format, scales)[0]) / own[i, i]
        inner = inner - own[i][:, None] * error[None]
        return inner, codes.at[i].set(code[0]), lost.at[i].set(error)

    zeros = jnp.zeros((block, outputs), jnp.float32)
    _, codes, lost = jax.lax.fori_loop(0, block, one, (inner, zeros.astype(jnp.int32), zeros))
    # Zero for inputs before the block; those in it have their codes, and nothing reads them again.
    update = jnp.matmul(rows.T, lost, precision=jax.lax.Precision.HIGHEST)
    return state.replace(
        matrix=state.matrix - update, codes=jax.lax.dynamic_update_slice_in_dim(state.codes, codes, start, 0)
    )


def _row(scales: Scales, group: Array) -> Scales:
    """The scales of one input."""

    def take(one: Array | None) -> Array | None:
        return None if one is None else jax.lax.dynamic_index_in_dim(one, group, 0)

    return Scales(take(scales.scale), take(scales.zero))


def gptq(
    model: Any,
    rows: Tokens,
    call: Call,
    quantization: Rounded,
    *,
    damp: float | None = None,
    order: Order = "activations",
    batch: int = 4,
    say: Say = print,
) -> tuple[Any, list[Error]]:
    """The model with codes chosen by GPTQ, and what each weight has lost.

    The rows that weights are fitted to need at least as many tokens, without padding, as the widest weight has
    inputs: H of fewer has no inverse but for its damping. Raises UsageError then, and as `rounding.round_layers`
    does; Failure as `damped` does.
    """
    _check_tokens(model, fitted_tokens(rows, batch), quantization)
    damps = DAMPS if damp is None else (damp,)

    def method(place: Place, tap: str, fitted: Gram, checked: Gram) -> Choose:
        places, roots = _places(fitted.mean, order), []
        for damp in damps:
            root, used = damped(fitted.mean[places][:, places], damp)
            roots.append(root)
            if used != damp:
                say(f"{place.full(tap)}, layer {place.number}: damping raised from {damp:g} to {used:g}")

        def choose(name: str, matrix: Matrix, format: Format) -> Chosen:
            tried = [chosen(matrix, root, places, format, order) for root in roots]
            lost = [
                squared_error(checked.mean, grid.values(codes, format, scales) - matrix) for codes, scales in tried
            ]
            return tried[int(jnp.argmin(jnp.stack(lost)))]

        return choose

    return round_layers(model, rows, call, quantization, method, batch=batch, say=say)


def _check_tokens(model: Any, tokens: int, quantization: Rounded) -> None:
    widest = (0, "")
    for name, weight in weights_of(model).items():
        if format_of(name, quantization) is not None:
            shape = jax.eval_shape(weight.dense).shape
            stacked = len(shape) - len(weight.axes)
            widest = max(widest, (prod(shape[stacked : stacked + weight.inputs]), name))
    if tokens < widest[0]:
        raise UsageError(
            f"GPTQ: {tokens} tokens beside padding for {widest[1]}, which has {widest[0]} inputs: at least as many "
            "are needed, besides the last quarter of the rows (128 rows of 2048 are common)"
        )
