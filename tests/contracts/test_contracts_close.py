"""Every kind of model, in every form of weight, trains, prefills and decodes alike on one device and on eight."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.config import Mesh
from jaxlm.config.errors import UsageError
from jaxlm.layers.axes import shardings
from jaxlm.layers.contracts import Call, Tokens
from jaxlm.parallel.layout import Layout
from jaxlm.parallel.mesh import make_mesh

LAYOUTS = {
    1: lambda: Layout(make_mesh(Mesh(), jax.devices()[:1])),
    8: lambda: Layout(make_mesh(Mesh(data=2, fsdp=2, tensor=2))),
}


def put(model, tokens, layout):
    places = jax.tree.map(lambda x: layout.sharding(("row", "pos"), x.shape), tokens)
    return jax.device_put(model, shardings(model, layout)), jax.device_put(tokens, places)


def train(model, tokens, call):
    memory = model.encode(tokens, call) if hasattr(model, "encoder") else None
    return model.logits(model(tokens, call, memory=memory).hidden, call)


def cut(tokens: Tokens, start: int, stop: int) -> Tokens:
    return jax.tree.map(lambda x: x[:, start:stop], tokens)


def in_steps(model, tokens, call, first: int = 4):
    """Prefill `first` tokens, then one at a time."""
    memory = model.encode(tokens, call) if hasattr(model, "encoder") else None
    cache = model.empty_cache(tokens.ids.shape[0], tokens.ids.shape[1], call)
    output = model(cut(tokens, 0, first), call, memory=memory, cache=cache)
    hidden = [output.hidden]
    step = jax.jit(lambda model, tokens, cache: model(tokens, call, cache=cache))
    for place in range(first, tokens.ids.shape[1]):
        output = step(model, cut(tokens, place, place + 1), output.cache)
        hidden.append(output.hidden)
    return model.logits(jnp.concatenate(hidden, axis=1), call), output.cache


@pytest.mark.parametrize("devices", [1, 8])
def test_train(kind, form, devices, make, tokens):
    layout = LAYOUTS[devices]()
    model = make(kind, form)
    expected = train(model, tokens, Call(LAYOUTS[1](), layers="unroll"))
    placed, rows = put(model, tokens, layout)
    logits = jax.jit(train, static_argnums=2)(placed, rows, Call(layout))
    real = np.asarray(tokens.segments) > 0
    assert logits.shape == (8, 12, 32)
    assert np.abs(logits - expected)[real].max() <= 2e-5 * max(1.0, float(jnp.std(expected)))


@pytest.mark.parametrize("devices", [1, pytest.param(8, marks=pytest.mark.nightly)])
def test_prefill_and_decode(kind, form, devices, make, tokens):
    if kind == "encoder":
        with pytest.raises(UsageError, match="encoder"):
            make(kind, form).empty_cache(1, 1, Call(LAYOUTS[1]()))
        return
    layout = LAYOUTS[devices]()
    call = Call(layout)
    model, rows = put(make(kind, form), tokens, layout)
    logits, cache = in_steps(model, rows, call)
    expected = train(model, rows, call)
    real = np.asarray(tokens.segments) > 0
    assert np.abs(logits - expected)[real].max() <= 2e-5 * max(1.0, float(jnp.std(expected)))
    np.testing.assert_array_equal(cache.lengths, real.sum(1))


def test_forms_differ(kind, make, tokens):
    """The forms are really different weights: the comparisons above are not of one model with itself."""
    call = Call(LAYOUTS[1](), layers="unroll")
    plain, adapted, rounded = (train(make(kind, form), tokens, call) for form in ("plain", "lora", "int8"))
    assert jnp.abs(plain - adapted).max() > 1e-2
    assert jnp.abs(plain - rounded).max() > 1e-4
