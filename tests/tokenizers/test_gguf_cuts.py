"""Byte-level BPE out of GGUF files cuts a text as the models' own tokenizers do, those of transformers."""

import json
from pathlib import Path

import pytest

from jaxlm.tokenizers.gguf import CUTS, tokenizer
from tests.tokenizers import lines

transformers = pytest.importorskip("transformers")
from transformers.convert_slow_tokenizer import TikTokenConverter  # noqa: E402

END = "<|endoftext|>"


@pytest.fixture(scope="module")
def vocabulary():
    """GPT-2's tokens and merges."""
    files = lines.folder() / "tokenizers"
    merges = [tuple(line.split(" ")) for line in (files / "gpt2_vocab.bpe").read_text().split("\n")[1:] if line]
    return json.loads((files / "gpt2_encoder.json").read_text()), merges


def ours(vocabulary, merges, pre):
    tokens = sorted(vocabulary, key=vocabulary.get)
    said = {"model": "gpt2", "pre": pre, "tokens": tokens, "merges": [" ".join(pair) for pair in merges]}
    said |= {"token_type": [3 if token == END else 1 for token in tokens], "eos_token_id": vocabulary[END]}
    return tokenizer({f"tokenizer.ggml.{name}": value for name, value in said.items()}, Path("a.gguf"))


class Llama3(TikTokenConverter):
    """transformers' own reading of Llama 3's tokenizer, with another vocabulary."""

    def __init__(self, vocabulary, merges):
        super().__init__()
        self.held = vocabulary, merges

    def extract_vocab_merges_from_model(self, tiktoken_url):
        return self.held


def theirs(vocabulary, merges, pre):
    match pre:
        case "gpt-2":
            return transformers.GPT2TokenizerFast(vocab=vocabulary, merges=merges)._tokenizer
        case "qwen2":
            return transformers.Qwen2Tokenizer(vocab=vocabulary, merges=merges)._tokenizer
        case "llama-bpe":
            return Llama3(vocabulary, merges).converted()


@pytest.fixture(scope="module")
def pairs(vocabulary):
    """Name -> (ours, theirs), of those that transformers has of its own."""
    return {pre: (ours(*vocabulary, pre), theirs(*vocabulary, pre)) for pre in ("gpt-2", "qwen2", "llama-bpe")}


@pytest.mark.parametrize("kind", lines.TEXTS)
def test_tokens_are_those_of_transformers(pairs, kind):
    texts = lines.TEXTS[kind]() + lines.HARD
    found = {}
    for pre, (own, reference) in pairs.items():
        found[pre] = [ids.tolist() for ids in own.encode_batch(texts)]
        assert found[pre] == [one.ids for one in reference.encode_batch(texts, add_special_tokens=False)]
    # The controls are each other.
    assert found["gpt-2"] != found["llama-bpe"] != found["qwen2"] != found["gpt-2"]


def test_a_part_that_is_a_token_is_one(vocabulary):
    """Without its merges, by Llama 3's way and not by GPT-2's."""
    places, merges = vocabulary
    merges = [pair for pair in merges if "".join(pair) != "Ġinternational"]
    ids = {pre: ours(places, merges, pre).encode(" international").tolist() for pre in CUTS}
    assert (
        ids["llama-bpe"]
        == [places["Ġinternational"]]
        == theirs(places, merges, "llama-bpe").encode(" international").ids
    )
    assert all(len(ids[pre]) > 1 for pre in CUTS if pre != "llama-bpe")
