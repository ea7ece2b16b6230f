"""Every kind of adapter: the identity at first, its merged matrix afterwards, and nothing else is trained."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm import config
from jaxlm.adapters.build import LEAVES, adapted, trained
from jaxlm.adapters.over import Over
from jaxlm.config.errors import UsageError
from jaxlm.layers.names import combine, flatten, partition
from jaxlm.layers.projection import Dense
from jaxlm.layers.weights import map_weights, weights_of
from jaxlm.objectives.prediction import Prediction
from jaxlm.train.step import make_gradient
from tests.tiny import CALL, GLOBAL, LOCAL, SIZES, close, layout, packed_batch, random_model
from tests.tiny import KINDS as TINY

KEY = jax.random.key(0)
KINDS = TINY | {
    "decoder": config.Decoder(**SIZES, layers=2, block=LOCAL),
    "patterned": config.Decoder(**SIZES, layers=3, block=config.Pattern((GLOBAL,), suffix=(LOCAL,))),
}
ADAPTERS = {
    "lora": config.Lora(rank=2),
    "rslora": config.Lora(rank=3, scaling="root"),
    "dora": config.Dora(rank=2, alpha=3.0),
    "vera": config.Vera(rank=5),
    "ia3": config.Ia3(),
    "bit_fit": config.BitFit(),
    "bottleneck": config.Bottleneck(width=3),
}
MODELS = ("decoder", "patterned", "encoder", "encoder_decoder", "rwkv4")
NONE = [("rwkv4", "bottleneck"), ("encoder_decoder", "bit_fit")]
"""Refused by name."""
ORDINARY = [("decoder", name) for name in ADAPTERS if name != "rslora"]
CASES = [
    pytest.param(kind, name, marks=() if (kind, name) in ORDINARY else pytest.mark.nightly)
    for kind in MODELS
    for name in ADAPTERS
    if (kind, name) not in NONE
]


@functools.cache
def start(kind, name):
    return adapted(random_model(KINDS[kind]), ADAPTERS[name], KEY)


def moved(model, adapter, size=0.1):
    """As after some steps: what is trained has other numbers."""
    rng = np.random.default_rng(1)
    ours, frozen = partition(model, trained(adapter))
    return combine(jax.tree.map(lambda x: x + size * rng.standard_normal(x.shape).astype(x.dtype), ours), frozen)


def merged(model):
    def one(_, weight):
        return (
            Dense(weight.dense(), weight.bias, weight.axes, weight.inputs) if isinstance(weight, Over) else weight
        )

    return map_weights(one, model)


@functools.partial(jax.jit, static_argnums=2)
def scores(model, batch, call=CALL):
    memory = None if batch.source is None else model.encode(batch.source, call)
    return model.logits(model(batch.inputs, call, memory=memory).hidden, call)


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_identity_then_merge(kind, name):
    base, first, batch = random_model(KINDS[kind]), start(kind, name), packed_batch(KINDS[kind], rows=2)
    real = np.asarray(batch.inputs.segments) > 0
    wanted = scores(base, batch)
    scale = max(1.0, float(jnp.std(wanted)))
    # norms of DoRA are rounded
    assert jnp.abs(scores(first, batch) - wanted)[real].max() <= 1e-5 * scale
    last = moved(first, ADAPTERS[name])
    got = scores(last, batch)
    assert jnp.abs(got - wanted)[real].max() > 1e-2
    if name not in ("bottleneck", "bit_fit"):
        assert jnp.abs(scores(merged(last), batch) - got)[real].max() <= 1e-5 * max(1.0, float(jnp.std(got)))
    unrolled = scores(last, batch, dataclasses.replace(CALL, layers="unroll"))
    assert jnp.abs(unrolled - got)[real].max() <= 1e-5 * max(1.0, float(jnp.std(got)))


@pytest.mark.parametrize("name", ADAPTERS)
def test_shapes_alone(name):
    kind = KINDS["decoder"]
    abstract = jax.eval_shape(lambda: adapted(random_model(kind), ADAPTERS[name], KEY))
    whole = {name: leaf.shape for name, leaf in flatten(start("decoder", name)).items()}
    assert {name: leaf.shape for name, leaf in flatten(abstract).items()} == whole


@pytest.mark.parametrize("name", ADAPTERS)
def test_what_is_trained(name):
    """Leaves by their last word, and no plain model has any such leaf but for biases."""
    adapter = ADAPTERS[name]
    ours, frozen = partition(start("decoder", name), trained(adapter))
    last = LEAVES[type(adapter)]
    assert {name.rsplit(".", 1)[-1] for name in flatten(ours)} == set(last)
    if name != "bit_fit":
        for kind in KINDS.values():
            assert not {name.rsplit(".", 1)[-1] for name in flatten(random_model(kind))} & set(last)
        assert flatten(frozen).keys() >= {
            f"{name}.base.kernel" for name, w in weights_of(start("decoder", name)).items() if isinstance(w, Over)
        }


@pytest.mark.parametrize(
    "name", ["dora", "vera", *(pytest.param(name, marks=pytest.mark.nightly) for name in ("ia3", "bottleneck"))]
)
def test_gradients_on_devices_that_join_their_tokens(name):
    """In a program a device, whichever sides of a weight are spread, and lengths summed over all of them."""
    adapter, kind = ADAPTERS[name], KINDS["decoder"]
    model = moved(adapted(random_model(kind, std=0.1), adapter, KEY), adapter, 0.1)
    batch, objective = packed_batch(kind), Prediction(chunks=2)
    halves = partition(model, trained(adapter))

    def gradient(where):
        found = make_gradient(objective, dataclasses.replace(CALL, layout=where))
        return jax.jit(found)(halves[0], {"model": halves[1]}, batch, objective.weights(batch), KEY)

    (gradients, (value, _)), (wanted, (loss, _)) = gradient(layout(fsdp=2, tensor=2)), gradient(CALL.layout)
    np.testing.assert_allclose(value, loss, rtol=2e-6)
    close(gradients, wanted)


@pytest.mark.parametrize(
    ("kind", "adapter", "said"),
    [
        (
            "decoder",
            config.Lora(rank=17),
            "adapter.rank=17: blocks.period.0.attention.query is 16 x 32, of rank 16",
        ),
        ("decoder", config.Dora(rank=0), "adapter.rank=0"),
        ("decoder", config.Lora(targets="attn"), "adapter.targets='attn' is found in no weight's name.*attention"),
        ("decoder", config.Vera(targets="("), r"adapter.targets='\(' is no regular expression"),
        ("decoder", config.Ia3(inputs="fc"), "adapter.inputs='fc'"),
        ("decoder", config.Bottleneck(targets="query"), "period.0.attention.query gives heads x head"),
        ("decoder", config.Bottleneck(width=0), "adapter.width=0"),
        ("decoder", config.Lora(dropout=1.0), "adapter.dropout=1.0"),
        ("rwkv4", config.Lora(dropout=0.1), "rwkv4 are given no keys"),
        ("rwkv4", config.Bottleneck(), "rwkv4 has gates"),
        ("encoder_decoder", config.BitFit(), "no biases"),
    ],
)
def test_refusals(kind, adapter, said):
    with pytest.raises(UsageError, match=f"(?s){said}"):
        adapted(random_model(KINDS[kind]), adapter, KEY)


def test_also():
    """A classifier is trained whole unless told otherwise, and all that floats where there is no adapter."""
    kind = dataclasses.replace(KINDS["encoder"], classifier=config.Classifier())
    model = adapted(random_model(kind), config.Lora(rank=2), KEY)
    names = [name for name in flatten(partition(model, trained(config.Lora()))[0]) if "classifier" in name]
    assert names == [f"classifier.{part}.{leaf}" for part in ("dense", "out") for leaf in ("kernel", "bias")]
    assert not any("classifier" in name for name in flatten(partition(model, trained(config.Lora(also="")))[0]))
    plain = random_model(kind)
    assert flatten(partition(plain, trained(config.NoAdapter()))[0]).keys() == flatten(plain).keys()
    with pytest.raises(UsageError, match=r"adapter\.also"):
        trained(config.Lora(also="["))


def test_dropout_of_inputs():
    """Keyed by row and weight: the same on other meshes, none without keys, and W is given all features."""
    adapter, kind = config.Lora(rank=2, alpha=2.0, dropout=0.5), KINDS["decoder"]
    model = moved(adapted(random_model(kind, std=0.1), adapter, KEY), adapter)
    batch, objective = packed_batch(kind), Prediction(chunks=2)
    halves = partition(model, trained(adapter))

    def gradient(where, halves=halves):
        found = make_gradient(objective, dataclasses.replace(CALL, layout=where))
        return jax.jit(found)(halves[0], {"model": halves[1]}, batch, objective.weights(batch), KEY)

    (gradients, (value, _)), (wanted, (loss, _)) = gradient(layout(fsdp=2, tensor=2)), gradient(CALL.layout)
    np.testing.assert_allclose(value, loss, rtol=2e-6)
    close(gradients, wanted)
    other = config.Lora(rank=2, alpha=2.0, dropout=0.25)
    plain = partition(moved(adapted(random_model(kind, std=0.1), other, KEY), other), trained(other))
    assert abs(gradient(CALL.layout, plain)[1][0] - loss) > 1e-4
    weight = model.blocks.period[0].mlp.up
    weight = jax.tree.map(lambda leaf: leaf[0], weight)
    x = jnp.ones((2, 3, 16))
    keys = jax.random.split(KEY, 2)
    zero = weight.replace(b=jnp.zeros_like(weight.b))
    spec = "rpe,em->rpm"
    np.testing.assert_array_equal(zero.dot(x, spec, CALL, key=keys), zero.dot(x, spec, CALL))
    assert jnp.abs(weight.dot(x, spec, CALL, key=keys) - weight.dot(x, spec, CALL)).max() > 1e-3
