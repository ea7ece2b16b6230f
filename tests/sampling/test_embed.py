"""Texts as vectors, from a directory as others keep encoders."""

import re

import numpy as np
import pytest

from jaxlm import config
from jaxlm.cli import main
from jaxlm.config.errors import UsageError
from jaxlm.config.objective import pooling
from jaxlm.families import known
from jaxlm.interop import exchange
from jaxlm.interop.imported import bring
from jaxlm.sampling.embed import embed, vectors
from jaxlm.tokenizers import given
from jaxlm.train.load import load_run
from tests.families.tiny import BERT
from tests.tiny import CALL, random_model, tokens
from tests.tokenizers import trained

KIND = known.family("bert").read(BERT | {"vocab_size": 400, "architectures": ["BertModel"]})
TEXTS = ["the quick brown fox", "it sleeps", "the lazy dog jumps over the evening and comes again", ""]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """(Directory, tokenizer, model)."""
    path = tmp_path_factory.mktemp("model") / "small"
    files = trained.write("wordpiece", path.parent / "files")
    found = random_model(KIND)
    exchange.save(KIND, found, path, length=64, files={one.name: one.read_bytes() for one in files.iterdir()})
    return path, given(config.TokenizerJson(str(files))), found


@pytest.mark.parametrize("pool", ["mean", "first", "last"])
def test_a_vector_is_of_its_text_alone(model, pool):
    """Against each text by itself, without padding."""
    _, tokenizer, found = model
    got = embed(found, tokenizer, TEXTS, CALL, pool)
    for vector, text in zip(got, TEXTS, strict=True):
        ids = [tokenizer.bos, *tokenizer.encode(text), tokenizer.eos]
        hidden = np.asarray(found(tokens([ids]), CALL).hidden)[0]
        wanted = {"mean": hidden.mean(0), "first": hidden[0], "last": hidden[-1]}[pool]
        np.testing.assert_allclose(vector, wanted / np.linalg.norm(wanted), atol=1e-5)


def test_order_and_number_of_texts_do_not_show(model):
    """Seventy texts of different lengths, in batches by length."""
    _, tokenizer, found = model
    texts = [" ".join(["quick", "fox", "dog"][: 1 + i % 3] * (1 + (7 * i) % 5)) for i in range(70)]
    got = embed(found, tokenizer, texts, CALL)
    assert got.shape == (70, 32)
    for i in (0, 1, 33, 69):
        np.testing.assert_allclose(got[i], embed(found, tokenizer, [texts[i]], CALL)[0], atol=1e-5)
    assert len({tuple(np.round(one, 4)) for one in got}) == len(set(texts))


def test_a_run_knows_what_makes_its_vectors():
    encoder = config.Encoder(64, 16, 1, classifier=config.Classifier(2, "last"))
    assert pooling(config.Contrastive(of="first"), encoder) == "first"
    assert pooling(config.Classification(), encoder) == "last"
    assert pooling(config.MaskedLm(), encoder) == "mean"
    tags = config.Encoder(64, 16, 1, classifier=config.Classifier(2, "tokens"))
    assert pooling(config.Classification(), tags) == "mean"


def test_padding_may_be_on_the_left(model):
    _, tokenizer, found = model
    ids = [tokenizer.bos, *tokenizer.encode(TEXTS[0]), tokenizer.eos]
    (wanted,) = embed(found, tokenizer, TEXTS[:1], CALL)
    row = tokens([[0] * 3 + ids], [[0] * 3 + [1] * len(ids)])
    np.testing.assert_allclose(vectors(found, row, CALL, "mean")[0], wanted, atol=1e-5)


def test_the_command_prints_every_pair(model, capsys, tmp_path, monkeypatch):
    directory, _, _ = model
    monkeypatch.chdir(tmp_path)
    assert main(["embed", str(directory), *(word for text in TEXTS[:3] for word in ("--text", text))]) == 0
    out = capsys.readouterr().out
    run_model, tokenizer, call = load_run(bring(directory))
    vectors = embed(run_model, tokenizer, TEXTS[:3], call)
    pairs = [(vectors[i] @ vectors[j], TEXTS[i], TEXTS[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    lines = [re.split(r" {2,}", line.strip()) for line in out.splitlines()[1:]]
    assert lines == [[f"{cosine:.3f}", one, other] for cosine, one, other in sorted(pairs, reverse=True)]


def test_refusals(model, capsys):
    _, tokenizer, found = model
    with pytest.raises(UsageError, match=r"'quick quick .* has 72 tokens, and this model 64 positions: cut"):
        embed(found, tokenizer, ["quick " * 70], CALL)
    with pytest.raises(UsageError, match="an encoder-decoder has no vectors"):
        embed(random_model(config.EncoderDecoder(64, 16, 1, 1)), tokenizer, TEXTS, CALL)
    for words, said in (
        (["nowhere", "--text", "a"], "two or more are compared"),
        (["nowhere", "--text", "a", "--text", "b", "--pool", "max"], "invalid choice: 'max'"),
        (["nowhere", "--text", "a", "--text", "b"], "nowhere does not exist"),
    ):
        assert main(["embed", *words]) == 2
        assert said in capsys.readouterr().err
