"""Decoders with heads that look further ahead: their layers, their closed forms, and every way to compute them."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm import config
from jaxlm.config.errors import UsageError
from jaxlm.config.flops import flops_per_token, parameters, staged
from jaxlm.families.known import published
from jaxlm.layers.axes import fitted, shardings
from jaxlm.layers.names import flatten, partition
from jaxlm.models.build import build
from jaxlm.objectives.build import build as build_objective
from jaxlm.planning.traced import product_flops
from jaxlm.sampling.loop import unstacked
from jaxlm.train.step import make_gradient
from tests.tiny import (
    CALL,
    GLOBAL,
    LOCAL,
    SIZES,
    close,
    layout,
    packed_batch,
    random_ids,
    random_model,
    tokens,
)

KIND = config.Decoder(**SIZES, layers=7, block=config.Pattern((LOCAL, GLOBAL), prefix=(GLOBAL,)), ahead=2)
OBJECTIVE = build_objective(config.MultiToken(0.5, chunks=5), KIND)
MIXTURE = config.Block(GLOBAL.attention, config.Moe(experts=4, top_k=2, width=8))
ENDS = {
    "block": config.Decoder(**SIZES, layers=3, block=GLOBAL, ahead=2),
    "one layer": config.Decoder(**SIZES, layers=1, block=GLOBAL, ahead=1, head=config.Untied(bias="all")),
    "period of two": KIND,
    "suffix": config.Decoder(**SIZES, layers=3, block=config.Pattern((LOCAL,), suffix=(GLOBAL,)), ahead=3),
    "prefix only": config.Decoder(**SIZES, layers=2, block=config.Pattern((LOCAL,), (LOCAL, GLOBAL)), ahead=1),
    "mixture": config.Decoder(**SIZES, layers=3, block=config.Pattern((MIXTURE,), (GLOBAL,)), ahead=2),
    "distances": config.Decoder(**SIZES, layers=2, block=GLOBAL, position=config.Shaw(clip=3), ahead=2),
    "post norm": config.Decoder(
        **SIZES,
        layers=2,
        block=dataclasses.replace(GLOBAL, wiring=config.PostNorm()),
        head=config.Transformed(),
        ahead=2,
    ),
}


# --- layers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ENDS)
def test_closed_forms_count_every_leaf(name):
    kind = ENDS[name]
    model = jax.eval_shape(lambda: build(kind, jax.random.key(0)))
    plain = jax.eval_shape(lambda: build(dataclasses.replace(kind, ahead=0), jax.random.key(0)))
    assert sum(leaf.size for leaf in jax.tree.leaves(model)) == parameters(kind)["total"]
    scanned = sum(leaf.size for leaf in jax.tree.leaves(model.blocks.period))
    assert scanned == staged(kind)
    assert model.blocks.depth == plain.blocks.depth == kind.layers
    last, *further = [jax.tree.map(lambda x: x.shape, one) for one in (model.blocks.suffix[-1], *model.ahead)]
    assert len(further) == kind.ahead
    assert all(one == last for one in further)
    places = flatten(shardings(model, fitted(layout(fsdp=2, tensor=2), model)))
    matrices = [leaf for leaf in places if leaf.endswith(".kernel") and "position" not in leaf]
    assert all("fsdp" in str(places[leaf].spec) for leaf in matrices)


@pytest.mark.parametrize("name", ["one layer", "suffix"])
def test_products_are_those_of_the_closed_form(name):
    """Of all heads: the plain backend computes all scores, of which the closed form halves the causal ones."""
    kind = dataclasses.replace(ENDS[name], position=config.NoPosition(), block=GLOBAL)
    objective = build_objective(config.MultiToken(chunks=1), kind)
    model = jax.eval_shape(lambda: build(kind, jax.random.key(0)))
    batch = jax.eval_shape(lambda: objective.prepare(packed_batch(kind, 2, 64), jax.random.key(0)))
    call = dataclasses.replace(CALL, attention="xla")
    traced = jax.jit(lambda m, b: objective.totals(m, b, None, call, {})).trace(model, batch).jaxpr
    closed = flops_per_token(kind, 64)
    assert product_flops(traced) == pytest.approx(2 * 64 * (closed["forward"] + closed["attention"]), rel=1e-6)


def test_layers_are_those_of_a_decoder_without_heads():
    make = jax.jit(build, static_argnums=0)
    model, plain = (make(kind, jax.random.key(1)) for kind in (KIND, dataclasses.replace(KIND, ahead=0)))
    for one, two in zip(model.blocks.layers(), plain.blocks.layers(), strict=True):
        jax.tree.map(np.testing.assert_array_equal, one, two)
    kernels = [
        np.asarray(one.mlp.up.kernel) for one in (*plain.blocks.layers(), *model.ahead) if one.mlp.up.bias is None
    ]
    assert not any(np.array_equal(a, b) for i, a in enumerate(kernels) for b in kernels[:i])


def test_the_last_layer_cannot_be_all_others_too():
    kind = config.Decoder(**SIZES, layers=2, block=config.Shared((GLOBAL,)), ahead=1)
    with pytest.raises(UsageError, match=r"model\.block is Shared"):
        build(kind, jax.random.key(0))


def test_no_format_has_room_for_them():
    with pytest.raises(UsageError, match=r"^model\.ahead is 2: no format that is known here has room for heads"):
        published(ENDS["block"], 64)
    assert published(dataclasses.replace(ENDS["block"], ahead=0), 64)[1]["num_hidden_layers"] == 3


# --- ways to compute them ----------------------------------------------------------------------------------


@functools.cache
def arguments():
    batch = packed_batch(KIND)
    return random_model(KIND, std=0.1), OBJECTIVE.prepare(batch, jax.random.key(0))


@functools.cache
def computed(call=CALL):
    """(Gradients, (loss, (terms, nothing))) of the objective, one program a device."""
    model, batch = arguments()
    trained, frozen = partition(model, lambda *_: True)
    gradient = jax.jit(make_gradient(OBJECTIVE, call))
    return gradient(trained, {"model": frozen}, batch, OBJECTIVE.weights(batch), jax.random.key(0))


WAYS = {
    "unroll": {"layers": "unroll"},
    "full": {"remat": "full"},
    "names": {"remat": "query+attention", "layers": "unroll"},
    "fsdp 2, tensor 2": {"layout": {"fsdp": 2, "tensor": 2}},
    "pipeline 2, fsdp 2": {"layout": {"pipeline": 2, "fsdp": 2}, "pipeline": config.Pipeline(2)},
}


@pytest.mark.parametrize(
    "way", [pytest.param(way, marks=pytest.mark.nightly if way != "names" else ()) for way in WAYS]
)
def test_the_same_numbers_in_every_way(way):
    gradients, (value, (terms, _)) = computed()
    how = {name: layout(**value) if name == "layout" else value for name, value in WAYS[way].items()}
    others, (other, (found, _)) = computed(dataclasses.replace(CALL, **how))
    np.testing.assert_allclose(other, value, rtol=2e-6)
    for term, mean in terms.items():
        np.testing.assert_allclose(found[term], mean, rtol=2e-6)
    close(others, gradients)


def test_every_layer_is_recomputed_by_itself():
    """Heads as all others: in a program of an unrolled stack as many recomputations as layers and heads."""
    model, batch = arguments()
    call = dataclasses.replace(CALL, layers="unroll", remat="full")
    traced = jax.make_jaxpr(jax.grad(lambda m: sum(OBJECTIVE.totals(m, batch, None, call, {})[0].values())))(model)
    found = [one.params for one in traced.jaxpr.eqns if one.primitive.name == "remat2"]
    # What attention recomputes within a layer is no forward pass of its own.
    forward = [one for one in found if not one["differentiated"] and one["policy"] is None]
    assert len(forward) == KIND.layers + KIND.ahead


def test_text_is_generated_by_the_next_token_alone():
    """As by a decoder without heads, whose layers these are; nothing of a head is computed."""
    kind = ENDS["suffix"]
    model = random_model(kind)
    plain = model.replace(ahead=(), config=dataclasses.replace(kind, ahead=0))
    inputs, flat = tokens(random_ids(2, 8)), unstacked(model)
    wanted = plain.logits(plain(inputs, CALL).hidden, CALL)
    cut = [jax.tree.map(lambda x, c=c: x[:, c], inputs) for c in (slice(0, 6), slice(6, 7), slice(7, 8))]

    @jax.jit
    def step(model, tokens, cache):
        output = model(tokens, dataclasses.replace(CALL, mode="decode"), cache=cache)
        return model.logits(output.hidden, CALL), output.cache

    scores, cache = [], model.empty_cache(2, 8, CALL)
    for piece in cut:
        logits, cache = step(flat, piece, cache)
        scores.append(logits)
    np.testing.assert_allclose(jnp.concatenate(scores, 1), wanted, atol=2e-5 * max(1, float(jnp.std(wanted))))
    pieces = (cut[1], model.empty_cache(2, 8, CALL))
    programs = [jax.make_jaxpr(step)(one, *pieces) for one in (flat, flat.replace(ahead=()))]
    assert product_flops(programs[0]) == product_flops(programs[1])
