"""Every family decodes what it computes at once, at the edges of windows too, and sees no padding on the left."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.families import known
from jaxlm.layers.contracts import Tokens
from jaxlm.models.encoder_decoder import EncoderDecoder
from tests.families.tiny import ENCODERS, TOLD, WINDOW, kind, windows
from tests.tiny import CALL, random_ids, random_model, tokens

ROWS, LENGTH = 3, 10
LENGTHS = (10, 7, 3)
"""Tokens of each row that is padded: longer than the window, and shorter."""
TOLERANCE = 1e-4
ORDINARY = ("gemma3_text", "bloom", "t5")
"""With parts that no other test decodes with: zero-centered norms and layers turned in two ways, ALiBi, buckets of
distances beside a memory.
"""
FAMILIES = [
    pytest.param(name, marks=() if name in ORDINARY else pytest.mark.nightly)
    for name in TOLD
    if name not in ENCODERS
]


def test_every_family_is_here():
    assert TOLD.keys() == known.FAMILIES.keys()
    windowed = {name for name in TOLD if windows(kind(name)) != {None}}
    assert windowed == {"mistral", "mixtral", "phi3", "gemma2", "gemma3_text", "starcoder2", "modernbert"}
    assert {window for name in windowed for window in windows(kind(name))} == {None, WINDOW}


@jax.jit
def run(model, inputs, cache=None):
    """An encoder-decoder attends to the same source in every row; once it has a cache, to what that holds."""
    memory = None
    if isinstance(model, EncoderDecoder) and (cache is None or cache.layers[0].cross is None):
        memory = model.encode(tokens(random_ids(1, LENGTH, seed=1).repeat(ROWS, axis=0)), CALL)
    output = model(inputs, CALL, cache=cache, memory=memory)
    return model.logits(output.hidden, CALL), output.cache


def decoded(model, inputs, cache_length, chunks):
    """Logits of a row's tokens, so many at a time."""
    cache, parts, begin = model.empty_cache(ROWS, cache_length, CALL), [], 0
    for count in chunks:
        end = begin + count
        logits, cache = run(model, jax.tree.map(lambda x, part=slice(begin, end): x[:, part], inputs), cache)
        parts.append(np.asarray(logits))
        begin = end
    return np.concatenate(parts, axis=1)


def left_padded(ids):
    """Each row's first tokens at the end of the row, as many as `LENGTHS` says."""
    moved, real = np.zeros_like(ids), np.zeros_like(ids)
    for row, length in enumerate(LENGTHS):
        moved[row, LENGTH - length :], real[row, LENGTH - length :] = ids[row, :length], 1
    positions = np.maximum(np.arange(LENGTH)[None] + np.array(LENGTHS)[:, None] - LENGTH, 0)
    return Tokens(*(jnp.asarray(x, jnp.int32) for x in (moved, real, positions)))


def padded_difference(model, ids, wanted, *, blind=False):
    """The largest difference of logits of rows padded on the left, whose padding may be taken for tokens."""
    padded = left_padded(ids)
    if blind:
        padded = padded.replace(segments=jnp.ones_like(padded.segments))
    got = np.asarray(run(model, padded)[0])
    return max(np.abs(got[row, LENGTH - n :] - wanted[row, :n]).max() for row, n in enumerate(LENGTHS))


def differences(model, ids, wanted):
    """The largest differences of logits: {how they were computed: difference}."""
    inputs = tokens(ids)
    ways = {"across the window": decoded(model, inputs, LENGTH, (WINDOW + 2, *(1,) * (LENGTH - WINDOW - 2)))}
    first = jax.tree.map(lambda x: x[:, :WINDOW], inputs)
    ways["a cache of the window"] = decoded(model, first, WINDOW, (1,) * WINDOW)
    found = {how: np.abs(got - wanted[:, : got.shape[1]]).max() for how, got in ways.items()}
    return found | {"padded on the left": padded_difference(model, ids, wanted)}


@pytest.mark.parametrize("name", FAMILIES)
def test_decoding_is_the_whole_forward(name):
    model, ids = random_model(kind(name)), random_ids(ROWS, LENGTH)
    wanted = np.asarray(run(model, tokens(ids))[0])
    unit = max(1.0, np.std(wanted))
    found = differences(model, ids, wanted)
    assert {how: far for how, far in found.items() if not far <= TOLERANCE * unit} == {}
    # Were padding seen, every family would show it; one of distances has NaN for positions that do not rise.
    assert not padded_difference(model, ids, wanted, blind=True) <= 100 * TOLERANCE * unit


@pytest.mark.nightly
def test_a_window_off_by_one_is_seen_by_every_way():
    model, ids = random_model(kind("mistral")), random_ids(ROWS, LENGTH)
    shorter = TOLD["mistral"] | {"model_type": "mistral", "sliding_window": WINDOW - 1}
    wanted = np.asarray(run(random_model(known.family("mistral").read(shorter)), tokens(ids))[0])
    assert min(differences(model, ids, wanted).values()) > 100 * TOLERANCE
