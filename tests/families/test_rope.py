"""Planes that transformers turns by each row's length, in and out."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxlm import config
from jaxlm.config.errors import UsageError
from jaxlm.families import known, llama
from jaxlm.interop import exchange
from jaxlm.layers import rope
from jaxlm.parallel.layout import single_device
from tests.tiny import CALL, tokens

TRAINED, VOCAB = 24, 50


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """A tiny LLaMA of transformers with dynamic scaling, and where it is."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    told = transformers.LlamaConfig(
        vocab_size=VOCAB, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=TRAINED,
        rope_parameters={"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10_000.0},
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(told).eval()
    with torch.no_grad():
        for one in model.parameters():
            one.normal_(std=0.2)
    directory = tmp_path_factory.mktemp("dynamic")
    model.save_pretrained(directory)

    def logits(ids):
        with torch.no_grad():
            return model(torch.tensor(ids)).logits.numpy()

    return directory, logits


def ours(model, ids):
    return np.asarray(jax.jit(lambda tokens: model.logits(model(tokens, CALL).hidden, CALL))(tokens(ids)))


def test_logits_are_those_of_transformers(reference, tmp_path):
    """In rows as long as the training's, and in longer ones of just the length that is stated."""
    directory, theirs = reference
    told, model = exchange.load(directory, single_device())
    assert told.position.scaling == config.DynamicNtk(4.0, TRAINED, TRAINED)
    ids = np.random.default_rng(0).integers(0, VOCAB, (2, 3 * TRAINED))
    short, long = ids[:, :TRAINED], ids
    wanted = theirs(short)  # before a longer row: it would leave its planes behind
    tolerance = 2e-5 * max(1.0, np.std(wanted))
    assert np.abs(ours(model, short) - wanted).max() <= tolerance
    stated = dataclasses.replace(told.position.scaling, target=3 * TRAINED)
    turned = dataclasses.replace(
        model, position=dataclasses.replace(model.position, config=config.Rope(scaling=stated))
    )
    assert np.abs(ours(turned, long) - theirs(long)).max() <= tolerance
    assert np.abs(ours(model, long) - theirs(long)).max() > 100 * tolerance, "the control: not turned for such rows"
    assert np.abs(ours(turned, short) - wanted).max() > 100 * tolerance, "the control: a shorter row"
    exchange.save(told, model, tmp_path / "out", length=TRAINED)
    again, _ = exchange.load(tmp_path / "out", single_device())
    assert again == told


@pytest.mark.parametrize(("target", "length"), [(2 * TRAINED, TRAINED), (TRAINED, 2 * TRAINED)])
def test_what_no_file_says_is_refused(target, length):
    model = dataclasses.replace(
        llama.llama2("7b"), position=config.Rope(scaling=config.DynamicNtk(4.0, TRAINED, target))
    )
    with pytest.raises(UsageError, match=f"dynamic_ntk: .* as those of {target} tokens") as error:
        known.published(model, length)
    assert str(error.value).count("dynamic_ntk") == 1
    other = {"model_type": "llama", **llama.write(llama.llama2("7b"), TRAINED)}
    other["rope_parameters"] = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10_000.0}
    assert llama.read(other).position.scaling == config.DynamicNtk(4.0, TRAINED, TRAINED)


def test_without_scaling_the_base_says_the_same():
    """What the refusal offers: the base of the stated length as theta."""
    scaling, rotated = config.DynamicNtk(4.0, TRAINED, 3 * TRAINED), 8
    base = 10_000.0 * (4.0 * 3 - 3) ** (rotated / (rotated - 2))
    np.testing.assert_allclose(
        rope.frequencies(base, rotated), rope.frequencies(10_000.0, rotated, scaling), rtol=1e-6
    )
