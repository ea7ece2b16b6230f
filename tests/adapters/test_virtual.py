"""Virtual tokens: one copy in a packed row is one for each document, with a cache as without, by every backend."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm import config
from jaxlm.adapters.attach import detached
from jaxlm.adapters.build import adapted, trained
from jaxlm.config.adapter_check import adapter_problems
from jaxlm.config.errors import UsageError
from jaxlm.layers.attention.mask import EVERYONE, Mask
from jaxlm.layers.axes import shardings
from jaxlm.layers.names import flatten, map_named, partition
from jaxlm.objectives.prediction import Prediction
from jaxlm.sampling import loop
from jaxlm.sampling.logits import Settings, sample_keys
from jaxlm.train.step import make_gradient
from tests.tiny import CALL, GLOBAL, LOCAL, SIZES, close, layout, packed_batch, random_ids, random_model, tokens
from tests.tiny import KINDS as TINY

KEY = jax.random.key(0)
P = 3
PREFIX, PROMPT = config.PrefixTuning(P), config.PromptTuning(P)
KINDS = {
    "rope": config.Decoder(**SIZES, layers=2, block=config.Pattern((GLOBAL,), suffix=(LOCAL,))),
    "alibi": config.Decoder(**SIZES, layers=2, block=GLOBAL, position=config.Alibi()),
    "learned": config.Decoder(
        **SIZES, layers=2, block=LOCAL, position=config.Learned(16), embedding=config.Normed()
    ),
    "encoder": TINY["encoder"],
    "encoder_decoder": dataclasses.replace(TINY["encoder_decoder"], position=config.RelativeBias(buckets=8)),
}


@functools.cache
def made(kind, adapter):
    """With large learned numbers, so that they matter."""
    model = adapted(random_model(KINDS[kind]), adapter, KEY)
    rng = np.random.default_rng(1)
    own = trained(adapter)
    return map_named(lambda n, x: jnp.asarray(rng.standard_normal(x.shape), x.dtype) if own(n, x) else x, model)


@functools.partial(jax.jit, static_argnums=2)
def scores(model, batch, call=CALL):
    memory = None if batch.source is None else model.encode(batch.source, call)
    return model.logits(model(batch.inputs, call, memory=memory).hidden, call)


CASES = [(kind, PREFIX) for kind in KINDS] + [(kind, PROMPT) for kind in ("rope", "alibi", "learned")]


def cases(*ordinary):
    """All of them, at night but for these."""
    named = {f"{kind}-{'prefix' if adapter == PREFIX else 'prompt'}": (kind, adapter) for kind, adapter in CASES}
    return [
        pytest.param(*case, id=name, marks=() if name in ordinary else pytest.mark.nightly)
        for name, case in named.items()
    ]


@pytest.mark.parametrize(("kind", "adapter"), cases("rope-prefix", "encoder-prefix", "learned-prompt"))
def test_a_packed_row_is_its_documents_alone(kind, adapter):
    model, batch = made(kind, adapter), packed_batch(KINDS[kind], rows=2)
    got = scores(model, batch)
    limit = 2e-5 * max(1.0, float(jnp.std(got)))
    assert jnp.abs(got - scores(random_model(KINDS[kind]), batch)).max() > 1e-2
    for document in (1, 2):
        place = np.asarray(batch.inputs.segments[0]) == document
        where = np.flatnonzero(place)

        def alone(part, where=where):
            return None if part is None else jax.tree.map(lambda x: x[:1, where], part)

        one = batch.replace(inputs=alone(batch.inputs), source=alone(batch.source))
        assert jnp.abs(scores(model, one)[0] - got[0, where]).max() <= limit


def test_a_prompt_is_tokens_in_front():
    """Where its vectors are those of tokens, what comes behind it is what comes behind them."""
    kind, ids = KINDS["alibi"], random_ids(2, 9)
    base = random_model(kind)
    prompt = jnp.asarray([5, 7, 9])
    model = made("alibi", PROMPT)
    model = model.replace(prompt=model.prompt.replace(vectors=base.embedding.kernel[prompt]))
    in_front = tokens(np.concatenate([np.broadcast_to(prompt, (2, P)), ids], axis=1))
    run = jax.jit(lambda model, tokens: model(tokens, CALL).hidden)
    wanted = run(base, in_front)[:, P:]
    got = run(model, tokens(ids))
    assert jnp.abs(got - wanted).max() <= 2e-5 * max(1.0, float(jnp.std(wanted)))
    assert jnp.abs(run(base, tokens(ids)) - wanted).max() > 1e-2


def test_a_prefix_is_keys_and_values_of_every_layer():
    """Against attention written out, for the first layer's scores: in a window too, and with no position."""
    mask = Mask(
        jnp.arange(4)[None], jnp.asarray([[0, 0, 0, 1, 2, 3]]), jnp.asarray([[1, 1, 2, 0]]),
        jnp.asarray([[EVERYONE, EVERYONE, 1, 1, 2, 0]]), window=1, shared=True,
    )  # fmt: skip
    wanted = [[1, 1, 1, 0, 0, 0], [1, 1, 0, 1, 0, 0], [1, 1, 0, 0, 1, 0], [0, 0, 0, 0, 0, 0]]
    np.testing.assert_array_equal(mask.dense()[0], np.asarray(wanted, bool))


@pytest.mark.parametrize(
    ("kind", "adapter"), [case for case in cases("rope-prefix", "alibi-prompt") if case.id != "encoder-prefix"]
)
def test_with_a_cache(kind, adapter):
    """Prefill and steps, documents packed and padding between; the cache holds them once, in front."""
    model, batch = made(kind, adapter), packed_batch(KINDS[kind], rows=2)
    memory = None if batch.source is None else model.encode(batch.source, CALL)
    wanted = scores(model, batch)
    real = np.asarray(batch.inputs.segments) > 0
    step = jax.jit(lambda tokens, cache, memory: model(tokens, CALL, cache=cache, memory=memory))

    def cut(start, stop):
        return jax.tree.map(lambda x: x[:, start:stop], batch.inputs)

    cache, hidden = model.empty_cache(2, 12, CALL), []
    np.testing.assert_array_equal(cache.lengths, 0)
    for start, stop in [(0, 5), *((place, place + 1) for place in range(5, 12))]:
        output = step(cut(start, stop), cache, memory if start == 0 else None)
        cache = output.cache
        hidden.append(output.hidden)
    got = model.logits(jnp.concatenate(hidden, axis=1), CALL)
    assert jnp.abs(got - wanted)[real].max() <= 2e-5 * max(1.0, float(jnp.std(wanted)))
    np.testing.assert_array_equal(cache.lengths, real.sum(1))


PREFIX_AT_NIGHT = [pytest.param(PREFIX, id="prefix", marks=pytest.mark.nightly), pytest.param(PROMPT, id="prompt")]


@pytest.mark.parametrize("adapter", PREFIX_AT_NIGHT)
def test_backends_and_ways(adapter):
    """XLA and pieces agree, scanned and unrolled layers too; the others refuse by name."""
    model, ids = made("rope", adapter), random_ids(2, 61)
    batch = packed_batch(KINDS["rope"], rows=2).replace(inputs=tokens(ids))
    wanted = scores(model, batch)
    limit = 2e-5 * max(1.0, float(jnp.std(wanted)))
    unrolled = scores(model, batch, dataclasses.replace(CALL, layers="unroll", attention="xla"))
    assert jnp.abs(unrolled - wanted).max() <= limit
    if adapter == PROMPT:  # 64 keys and 64 queries: pieces of more than a few
        assert jnp.abs(scores(model, batch, dataclasses.replace(CALL, attention="chunked")) - wanted).max() <= limit
    for name in ("blocks", "splash", "cudnn"):
        with pytest.raises(UsageError, match=f"where.attention='{name}'"):
            scores(model, batch, dataclasses.replace(CALL, attention=name))


def gradient(model, adapter, where):
    batch, objective = packed_batch(KINDS["rope"]), Prediction(chunks=2)
    halves = partition(model, trained(adapter))
    found = make_gradient(objective, dataclasses.replace(CALL, layout=where))
    return jax.jit(found)(halves[0], {"model": halves[1]}, batch, objective.weights(batch), KEY)


@pytest.mark.nightly
def test_gradients_on_devices():
    """A prefix where devices join their tokens, a prompt where each has whole rows."""
    for adapter, mesh in ((PREFIX, {"fsdp": 2, "tensor": 2}), (PROMPT, {"fsdp": 2})):
        model = made("rope", adapter)
        gradients, (value, _) = gradient(model, adapter, layout(**mesh))
        wanted, (loss, _) = gradient(model, adapter, CALL.layout)
        np.testing.assert_allclose(value, loss, rtol=2e-6)
        close(gradients, wanted)
        assert set(flatten(gradients)) == {n for n, x in flatten(model).items() if trained(adapter)(n, x)}


def test_meshes_that_are_refused():
    with pytest.raises(UsageError, match=r"where\.mesh\.tensor spread rows"):
        gradient(made("rope", PROMPT), PROMPT, layout(fsdp=2, tensor=2))
    with pytest.raises(UsageError, match="no attention backend takes this"):
        gradient(made("rope", PREFIX), PREFIX, layout(context=2))


@pytest.mark.nightly
def test_on_eight_devices():
    for adapter in (PREFIX, PROMPT):
        model, batch = made("rope", adapter), packed_batch(KINDS["rope"])
        where = layout(data=2, fsdp=2, tensor=2)
        placed = jax.device_put(model, shardings(model, where))
        wanted = scores(model, batch)
        got = scores(placed, batch, dataclasses.replace(CALL, layout=where))
        real = np.asarray(batch.inputs.segments) > 0
        assert jnp.abs(got - wanted)[real].max() <= 2e-5 * max(1.0, float(jnp.std(wanted)))


@pytest.mark.parametrize("adapter", PREFIX_AT_NIGHT)
def test_generation(adapter):
    """Greedy tokens are the best ones of whole forward passes, of prompts of different lengths."""
    model, ids = made("rope", adapter), random_ids(2, 7)
    segments = np.asarray([[1] * 7, [1] * 4 + [0] * 3])
    keys = sample_keys(jnp.zeros(2, int), jnp.arange(2))
    settings = Settings.of(2, temperature=0.0)
    whole = jax.jit(lambda tokens: model.logits(model(tokens, CALL).hidden, CALL))
    drawn = loop.generate(model, tokens(ids, segments), settings, keys, tokens=5, stop=None, call=CALL)
    for row, length in enumerate((7, 4)):
        text = np.concatenate([ids[row, :length], drawn.ids[row]])[None]
        best = jnp.argmax(whole(tokens(text)), axis=-1)
        np.testing.assert_array_equal(best[0, length - 1 : -1], drawn.ids[row])


def test_taps_are_of_the_text():
    model, batch = made("rope", PROMPT), packed_batch(KINDS["rope"], rows=2)
    call = dataclasses.replace(CALL, taps=("residual", "mlp.mean_square"))
    taps = model(batch.inputs, call).taps
    assert taps["residual"].shape == (2, 2, 12, 16)
    assert taps["mlp.mean_square"].shape == (2,)


def test_detached():
    for adapter in (PREFIX, PROMPT):
        model = detached(made("rope", adapter))
        assert jax.tree.structure(model) == jax.tree.structure(random_model(KINDS["rope"]))


@pytest.mark.parametrize(
    ("kind", "adapter", "said"),
    [
        (TINY["rwkv4"], PREFIX, "rwkv4 has no attention"),
        (TINY["encoder"], PROMPT, "encoder a prompt would see"),
        (TINY["encoder_decoder"], PROMPT, "encoder_decoder a prompt would see"),
        (dataclasses.replace(KINDS["alibi"], position=config.Shaw(2)), PREFIX, "Shaw"),
        (dataclasses.replace(KINDS["alibi"], ahead=1), PROMPT, "model.ahead=1"),
        (KINDS["alibi"], config.PromptTuning(0), "adapter.length=0"),
        (
            config.Decoder(**SIZES, layers=2, block=config.Block(GLOBAL.attention, config.Moe(4, 2, 8))),
            PROMPT,
            "router",
        ),
    ],
)
def test_refusals(kind, adapter, said):
    with pytest.raises(UsageError, match=said):
        adapted(random_model(kind), adapter, KEY)


def test_no_room():
    """A table of positions holds prompt and text; jax would make NaN of more."""
    model = made("learned", PROMPT)
    assert not list(adapter_problems(PROMPT, KINDS["learned"], 13))
    (problem,) = adapter_problems(PROMPT, KINDS["learned"], 14)
    assert "rows of 14 tokens that is more than the 16 positions" in problem
    loop.check_positions(model, 13)
    with pytest.raises(UsageError, match="need 17 positions"):
        loop.check_positions(model, 14)
    with pytest.raises(UsageError, match="has virtual tokens already"):
        adapted(made("rope", PREFIX), PREFIX, KEY)
