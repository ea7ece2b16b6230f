"""A decoder that sees a prefix from both sides: what depends on what, and transformers' LLaMA under such a mask."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.layers.test_prefix import loops
from tests.models.test_references import LENGTH, LLAMA, ROWS, VOCAB, llama
from tests.tiny import CALL, KINDS, random_ids, random_model, tokens

PREFIX, LONG = 6, 12


@jax.jit
def run(model, inputs):
    return model.logits(model(inputs, CALL).hidden, CALL)


def marked(ids, prefix, segments=None):
    """Tokens whose documents have prefixes that end at these positions, one for each segment."""
    inputs = tokens(ids, segments)
    ends = np.array([0, *prefix])[np.asarray(inputs.segments)]
    return inputs.replace(prefix=jnp.asarray(ends, jnp.int32))


def changed(model, inputs, place) -> np.ndarray:
    """At which places logits change by more than rounding with the token at one."""
    other = inputs.replace(ids=inputs.ids.at[:, place].set((inputs.ids[:, place] + 7) % 63 + 1))
    before, after = (np.asarray(run(model, x)) for x in (inputs, other))
    return np.abs(after - before).max(axis=(0, 2)) > 1e-6


@pytest.mark.parametrize("name", ["decoder", "wired"])
def test_what_depends_on_what(name):
    """Tokens of a suffix are seen by what follows, those of a prefix by all of it too; neighbors by nobody.

    Three of the decoder's layers have a window of four, so that it takes two of them to see all.
    """
    model, ids = random_model(KINDS[name]), random_ids(2, 2 * LONG, seed=3)
    inputs = marked(ids, (PREFIX, 2), [[1] * LONG + [2] * LONG] * 2)
    places = np.arange(2 * LONG)
    for place in (0, 3, PREFIX - 1):
        np.testing.assert_array_equal(changed(model, inputs, place), places < LONG)
    for place in (PREFIX, LONG - 2):
        seeing = (places >= place) & (places < LONG)
        np.testing.assert_array_equal(changed(model, inputs, place), seeing)
    np.testing.assert_array_equal(changed(model, inputs, LONG + 1), places >= LONG)
    causal = inputs.replace(prefix=None)
    np.testing.assert_array_equal(changed(model, causal, 3), (places >= 3) & (places < LONG))


def test_a_prefix_of_one_token_is_causal():
    """The same logits as without a prefix: by xla in place of blocks."""
    model, ids = random_model(KINDS["decoder"]), random_ids(2, LONG, seed=3)
    one, none = run(model, marked(ids, (1,))), run(model, tokens(ids))
    np.testing.assert_allclose(one, none, atol=2e-5 * max(1, np.std(none)))


def test_llama_under_the_same_mask():
    torch = pytest.importorskip("torch")
    model = random_model(LLAMA)
    reference, ids = llama(model), np.random.default_rng(0).integers(1, VOCAB, (ROWS, LENGTH))
    cut = 37

    def theirs(prefix):
        ones = np.ones_like(ids)
        seen = loops(np.arange(LENGTH)[None].repeat(ROWS, 0), ones, prefix * ones, LENGTH, None)
        mask = torch.where(torch.tensor(seen)[:, None], 0.0, torch.finfo(torch.float32).min)
        with torch.no_grad():
            return reference(torch.tensor(ids), attention_mask=mask).logits.numpy()

    got, wanted = np.asarray(run(model, marked(ids, (cut,)))), theirs(cut)
    tolerance = 2e-5 * max(1, np.std(wanted))
    assert np.abs(got - wanted).max() <= tolerance
    assert np.abs(got - theirs(cut - 1)).max() > 100 * tolerance, "one token less"
    assert np.abs(got - theirs(1)).max() > 100 * tolerance, "causal"
