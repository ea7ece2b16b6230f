"""A published model comes in, goes out, and says the same in transformers."""

import re

import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.config.sampling import Options
from jaxlm.interop.export import export
from jaxlm.interop.imported import bring
from jaxlm.layers.contracts import Tokens
from jaxlm.sampling.embed import embed, vectors
from jaxlm.sampling.text import sample_with_log_probabilities
from jaxlm.train.load import load_run
from tests.interop import ggufs
from tests.interop.packages import sentence_encoder

PROMPTS = ("The capital of France is", "def fibonacci(n):", "Once upon a time, in a village by the sea,")
TOKENS = 48
TEXTS = (
    *PROMPTS,
    "  two spaces, 12345 numbers,\ttabs\nand lines\n\n",
    "日本語のテキスト、絵文字 👩‍👩‍👧 and ﬁnal ligatures",
    "naïve café – “quotes” … 3.14e-5 == x[:, None]",
    "",
)


@pytest.mark.nightly
def test_transformers_says_the_same(tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    run, out = bring(ggufs.published(), str(tmp_path / "run")), tmp_path / "out"
    assert "config.json (llama), safetensors, tokenizer.json" in export(run, out)
    model, tokenizer, call = load_run(run)
    ours = sample_with_log_probabilities(model, tokenizer, PROMPTS, Options(temperature=0.0, tokens=TOKENS), call)
    theirs = transformers.AutoTokenizer.from_pretrained(out)
    for text in TEXTS:
        assert theirs(text).input_ids == [tokenizer.bos, *tokenizer.encode(text).tolist()]
    reference = transformers.AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    for sample in ours:
        inputs = theirs(sample.prompt, return_tensors="pt")
        with torch.no_grad():
            whole = reference.generate(**inputs, max_new_tokens=TOKENS, do_sample=False)[0]
        wanted = whole[inputs.input_ids.shape[1] :].tolist()
        assert sample.ids == wanted
        assert len(wanted) == TOKENS or wanted[-1] == tokenizer.eos
        assert sample.text == theirs.decode(wanted, skip_special_tokens=True)
    assert sum(len(sample.ids) for sample in ours) >= 64
    assert re.match(" Paris", ours[0].text)


ALIKE = (
    ("How do I reset my PIN?", "I forgot my PIN, how can I reset it?"),
    ("A cat sleeps on the sofa.", "A cat is sleeping on the couch."),
    ("The stock market fell sharply on Monday.", "On Monday, stock prices fell sharply."),
    ("He plays the guitar every evening.", "Every evening he plays his guitar."),
)
LONGER = (
    "Water.",
    "The committee of the village, which had met every Tuesday since the flood, decided after a long debate that "
    "the old bridge was to be rebuilt in stone, and that everybody who used it should pay a small toll. " * 3,
    "naïve café, résumé: 3.14159 (approximately) — “quoted”",
    "日本語のテキスト",
)


@pytest.fixture(scope="module")
def minilm(tmp_path_factory):
    """all-MiniLM-L6-v2 out of its package; skips without it."""
    return sentence_encoder(tmp_path_factory.mktemp("minilm"))


def left(rows, pad):
    """The rows, padded on the left."""
    width = max(map(len, rows))
    ids, real, positions = (np.full((len(rows), width), fill, np.int32) for fill in (pad, 0, 0))
    for number, row in enumerate(rows):
        ids[number, width - len(row) :], real[number, width - len(row) :] = row, 1
        positions[number, width - len(row) :] = range(len(row))
    return Tokens(*map(jnp.asarray, (ids, real, positions)))


@pytest.mark.nightly
def test_sentences_have_the_vectors_of_transformers(minilm, tmp_path):
    """Texts of 3 to 150 tokens, padded on either side; paraphrases are alike and other pairs are not."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    texts = [*(text for pair in ALIKE for text in pair), *LONGER]
    theirs = transformers.AutoTokenizer.from_pretrained(minilm)
    reference = transformers.AutoModel.from_pretrained(minilm, dtype=torch.float32).eval()
    with torch.no_grad():
        inputs = theirs(texts, padding=True, return_tensors="pt", truncation=False)
        hidden, mask = reference(**inputs).last_hidden_state, inputs.attention_mask[..., None]
        wanted = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1).numpy()
    model, tokenizer, call = load_run(bring(minilm, str(tmp_path / "run")))
    got = embed(model, tokenizer, texts, call)
    rows = [[tokenizer.bos, *tokenizer.encode(text), tokenizer.eos] for text in texts]
    assert min(map(len, rows)) <= 4
    assert max(map(len, rows)) > 100
    np.testing.assert_allclose(got, wanted, atol=1e-5)
    np.testing.assert_allclose(vectors(model, left(rows, tokenizer.pad), call, "mean"), wanted, atol=1e-5)
    assert np.abs(embed(model, tokenizer, texts, call, "first") - wanted).max() > 1e-2
    cosines = got @ got.T
    for one in range(2 * len(ALIKE)):
        for other in range(one):
            assert cosines[one, other] > 0.7 if one // 2 == other // 2 else cosines[one, other] < 0.15
