"""Streamed text against the same text at once, and log-probabilities against a full forward of the text."""

import dataclasses
import functools
import json
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm import config
from jaxlm.config.errors import UsageError
from jaxlm.config.sampling import Options
from jaxlm.layers.contracts import Call, Tokens
from jaxlm.models.build import build
from jaxlm.parallel.layout import single_device
from jaxlm.sampling.text import sample_with_log_probabilities, stream, text_pieces
from jaxlm.serve.generate import generate
from jaxlm.tokenizers.bytes import ByteTokenizer
from tests.base import experiment

CALL = Call(layout=single_device())


Bytes = ByteTokenizer


class Ascii(ByteTokenizer):
    """Of so few tokens that whatever is drawn is text that encodes to the same tokens."""

    vocab = 132


ASCII = Ascii()
BLOCK = config.Block(attention=config.Attention(heads=2, kv_heads=1, head=8), mlp=config.Plain(width=32))


@functools.cache
def model_of(vocab, kind="decoder"):
    size = {"vocab": vocab, "embed": 16, "head": config.Untied()}
    if kind == "decoder":
        model = config.Decoder(layers=2, block=BLOCK, **size)
    else:
        model = config.EncoderDecoder(encoder_layers=1, decoder_layers=1, block=BLOCK, **size)
    make = jax.jit(lambda key: build(model, key), compiler_options={"xla_backend_optimization_level": 0})
    return jax.tree.map(lambda leaf: 1.5 * leaf, make(jax.random.key(4)))


def full_log_p(model, ids, prefix=None):
    """Log-probabilities of all tokens but the first, from one forward without a cache."""
    ids = np.asarray(ids)[None]
    tokens = Tokens(*map(jnp.asarray, (ids, np.ones_like(ids), np.arange(ids.shape[1])[None])))
    if prefix is not None:
        tokens = tokens.replace(prefix=jnp.full_like(tokens.ids, prefix))
    log_p = jax.nn.log_softmax(model.logits(model(tokens, CALL).hidden, CALL)[0])
    return np.asarray(log_p)[np.arange(ids.shape[1] - 1), ids[0, 1:]]


def test_log_probabilities_can_be_computed_again_from_what_is_saved():
    model = model_of(ASCII.vocab)
    options = Options(tokens=30, temperature=0.9, top_p=0.95, samples=2)
    samples = sample_with_log_probabilities(model, ASCII, ["def ", "x"], options, CALL)
    assert [sample.prompt for sample in samples] == ["def ", "def ", "x", "x"]
    assert len({sample.text for sample in samples}) == 4
    for sample in samples:
        saved = json.loads(json.dumps(sample.as_json(ASCII)))
        start = 1 + len(sample.prompt)
        assert saved["log_probabilities"][:start] == [None] * start
        assert "".join(saved["tokens"]) == saved["text"] == sample.prompt + sample.text
        again = full_log_p(model, saved["ids"])[start - 1 :]
        np.testing.assert_allclose(saved["log_probabilities"][start:], again, atol=1e-4)
        other = full_log_p(model, [*saved["ids"][: start - 1], 50, *saved["ids"][start:]])[start - 1 :]
        assert np.abs(other - again).max() > 1e-2


def test_samples_do_not_depend_on_the_other_prompts():
    model = model_of(ASCII.vocab)
    together = sample_with_log_probabilities(model, ASCII, ["def ", "x"], Options(tokens=30, samples=2), CALL)
    alone = sample_with_log_probabilities(model, ASCII, ["x"], Options(tokens=30), CALL)
    assert alone[0].ids == together[2].ids
    other = sample_with_log_probabilities(model, ASCII, ["x"], Options(tokens=30, seed=1), CALL)
    assert other[0].ids != alone[0].ids


def test_prompts_do_not_share_their_noise():
    """At a temperature where the model has no say, the same noise would draw the same tokens."""
    options = Options(tokens=30, temperature=1e6)
    one, other = sample_with_log_probabilities(model_of(ASCII.vocab), ASCII, ["def ", "The "], options, CALL)
    assert sum(a == b for a, b in zip(one.ids, other.ids, strict=False)) < 5


@pytest.mark.parametrize("kind", ["decoder", "encoder_decoder"])
@pytest.mark.parametrize("tokens", [1, 30])
def test_the_stream_is_the_sample(kind, tokens):
    tokenizer, options = Bytes(), Options(tokens=tokens, temperature=1.2)
    model = model_of(tokenizer.vocab, kind)
    (sample,) = sample_with_log_probabilities(model, tokenizer, ["né"], options, CALL)
    pieces = list(stream(model, tokenizer, "né", options, CALL))
    assert "".join(pieces) == sample.text == tokenizer.decode(sample.ids)
    assert len(pieces) > 1 or tokens == 1


def test_an_encoder_decoder_reads_its_prompt():
    tokenizer, options = Bytes(), Options(tokens=30, temperature=0.0)
    model = model_of(tokenizer.vocab, "encoder_decoder")
    samples = sample_with_log_probabilities(model, tokenizer, ["one", "two"], options, CALL)
    first, second = (sample.log_probabilities for sample in samples)
    assert not np.allclose(first[0], second[0], atol=1e-4)


def test_a_prompt_that_is_seen_from_both_sides():
    """The most likely tokens of a whole forward in which the prompt is a prefix, not of one from left to right."""
    model, options = model_of(ASCII.vocab), Options(tokens=12, temperature=0.0, reading="prefix")
    (sample,) = sample_with_log_probabilities(model, ASCII, ["def f"], options, CALL)
    assert "".join(stream(model, ASCII, "def f", options, CALL)) == sample.text
    ids, start = sample.as_json(ASCII)["ids"], 1 + len("def f")
    again = full_log_p(model, ids, start)[start - 1 :]
    np.testing.assert_allclose(sample.log_probabilities, again, atol=1e-4)
    assert np.abs(full_log_p(model, ids)[start - 1 :] - again).max() > 1e-2
    with pytest.raises(UsageError, match="reading=prefix: an encoder-decoder"):
        list(stream(model_of(Bytes().vocab, "encoder_decoder"), Bytes(), "x", options, CALL))


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
def test_pieces_never_split_a_character(size):
    tokenizer, text = Bytes(), "añ → 🙂!\n"
    ids = tokenizer.encode(text)
    pieces = list(text_pieces(tokenizer, [ids[i : i + size] for i in range(0, len(ids), size)]))
    assert "".join(pieces) == text
    assert all(pieces)
    assert "\ufffd" not in "".join(pieces)


def test_bytes_that_are_no_text_are_flushed_at_the_end():
    tokenizer, ids = Bytes(), Bytes().encode("a🙂")
    assert list(text_pieces(tokenizer, [[token] for token in ids[:-1]])) == ["a", "\ufffd"]
    assert list(text_pieces(tokenizer, [ids[1:3], ids[:1]])) == ["\ufffda"]


def test_generate_loads_a_run(monkeypatch):
    model, tokenizer = model_of(Bytes().vocab), Bytes()
    loads = types.ModuleType("jaxlm.train.load")
    loads.load_run = lambda run: {"runs/x": (model, tokenizer, CALL)}[run]
    monkeypatch.setitem(sys.modules, "jaxlm.train.load", loads)
    for objective, reading in ((config.Autoregressive(), "causal"), (config.PrefixLm(), "prefix")):
        found = dataclasses.replace(experiment(), objective=objective)
        monkeypatch.setattr("jaxlm.serve.generate.read_experiment", lambda run, found=found: found)
        texts = ["".join(pieces) for pieces in generate("runs/x", "hi", Options(tokens=12, samples=2))]
        options = Options(tokens=12, samples=2, reading=reading)
        drawn = sample_with_log_probabilities(model, tokenizer, ["hi"], options, CALL)
        assert texts == [sample.text for sample in drawn]


def test_bad_options_are_refused():
    model = model_of(ASCII.vocab)
    for name, value in {"tokens": 0, "temperature": -1.0, "top_p": 0.0}.items():
        options = dataclasses.replace(Options(), **{name: value})
        with pytest.raises(UsageError, match=name):
            list(stream(model, ASCII, "x", options, CALL))
    with pytest.raises(UsageError, match="prompts"):
        sample_with_log_probabilities(model, ASCII, [], Options(), CALL)
