"""Streamed text against the same text at once, and log-probabilities against a full forward of the text."""

import dataclasses
import functools
import sys
import types

import jax
import numpy as np
import pytest

from jaxlm import config
from jaxlm.config.errors import UsageError
from jaxlm.layers.contracts import Call, Tokens
from jaxlm.models.build import build
from jaxlm.parallel.layout import single_device
from jaxlm.serve.generate import Options, generate, sample_with_log_probabilities, stream, text_pieces

CALL = Call(layout=single_device())


@pytest.fixture(autouse=True, scope="module")
def quick_compilation():
    """Most of these tests' time is the compiler's."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


class Bytes:
    """Tokens 0 to 2 are padding, beginning and end; 3 + b is the byte b, as far as the vocabulary goes."""

    pad, bos, eos = 0, 1, 2

    def __init__(self, vocab=259):
        self.vocab = vocab

    def encode(self, text):
        return np.frombuffer(text.encode(), np.uint8).astype(np.int32) + 3

    def bytes_of(self, ids):
        return bytes(int(token) - 3 for token in ids if token >= 3)

    def decode(self, ids):
        return self.bytes_of(ids).decode("utf-8", "replace")


ASCII = Bytes(131)
BLOCK = config.Block(attention=config.Attention(heads=2, kv_heads=1, head=8), mlp=config.Plain(width=32))


@functools.cache
def model_of(vocab, kind="decoder"):
    size = {"vocab": vocab, "embed": 16, "head": config.Untied()}
    if kind == "decoder":
        model = config.Decoder(layers=2, block=BLOCK, **size)
    else:
        model = config.EncoderDecoder(encoder_layers=1, decoder_layers=1, block=BLOCK, **size)
    make = jax.jit(lambda key: build(model, key))
    return jax.tree.map(lambda leaf: 1.5 * leaf, make(jax.random.key(4)))


@jax.jit
def forward(model, tokens):
    return jax.nn.log_softmax(model.logits(model(tokens, CALL).hidden, CALL))


def full_log_p(model, prompt, text):
    """Log-probabilities of the text's tokens after the prompt's, from one forward without a cache."""
    ids = np.concatenate([[ASCII.bos], ASCII.encode(prompt + text)])
    padded, places = np.pad(ids, (0, 48 - len(ids)))[None], np.arange(48)[None]
    log_p = np.asarray(forward(model, Tokens(padded, (places < len(ids)).astype(np.int32), places)))
    places = np.arange(len(prompt), len(ids) - 1)
    return log_p[0, places, ids[places + 1]]


def test_log_probabilities_can_be_computed_again_from_the_text():
    model = model_of(ASCII.vocab)
    options = Options(tokens=30, temperature=0.9, top_p=0.95, samples=2)
    samples = sample_with_log_probabilities(model, ASCII, ["def ", "x"], options, CALL)
    assert [sample.prompt for sample in samples] == ["def ", "def ", "x", "x"]
    assert len({sample.text for sample in samples}) == 4
    for sample in samples:
        ended = sample.ids[-1] == ASCII.eos
        assert len(sample.ids) == len(sample.log_probabilities) == (len(sample.text) + ended)
        again = full_log_p(model, sample.prompt, sample.text)
        np.testing.assert_allclose(sample.log_probabilities[: len(again)], again, atol=1e-4)
        assert np.abs(full_log_p(model, "y" + sample.prompt[1:], sample.text) - again).max() > 1e-2


def test_samples_do_not_depend_on_the_other_prompts():
    model = model_of(ASCII.vocab)
    together = sample_with_log_probabilities(model, ASCII, ["def ", "x"], Options(tokens=30, samples=2), CALL)
    alone = sample_with_log_probabilities(model, ASCII, ["x"], Options(tokens=30), CALL)
    assert alone[0].ids == together[2].ids
    other = sample_with_log_probabilities(model, ASCII, ["x"], Options(tokens=30, seed=1), CALL)
    assert other[0].ids != alone[0].ids


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
    model, tokenizer = model_of(259), Bytes()
    loads = types.ModuleType("jaxlm.train.load")
    loads.load_run = lambda run: {"runs/x": (model, tokenizer, CALL)}[run]
    monkeypatch.setitem(sys.modules, "jaxlm.train.load", loads)
    options = Options(tokens=12)
    assert list(generate("runs/x", "hi", options)) == list(stream(model, tokenizer, "hi", options, CALL))


def test_bad_options_are_refused():
    model = model_of(ASCII.vocab)
    for name, value in {"tokens": 0, "temperature": -1.0, "top_p": 0.0, "samples": 2}.items():
        options = dataclasses.replace(Options(), **{name: value})
        with pytest.raises(UsageError, match=name):
            list(stream(model, ASCII, "x", options, CALL))
    with pytest.raises(UsageError, match="prompts"):
        sample_with_log_probabilities(model, ASCII, [], Options(), CALL)
