import random

import numpy as np
import pytest
import sentencepiece

from jaxlm.config import Bytes, SentencePiece, SentencePieceFile
from jaxlm.config.errors import Failure, UsageError
from jaxlm.tokenizers import ByteTokenizer, SentencePieceTokenizer, build, load, stream, train
from tests.tokenizers import lines

TEXTS = [
    f"class Node{i}:\n    def visit_{name}(self, v):\n\t\treturn self.{name} + {i * 37}\n\n\n# Of {name}.\n"
    for i, name in enumerate(["alpha", "beta", "gamma", "delta", "value", "token", "stream", "document"] * 8)
]
HARD = [
    *lines.HARD,
    "▁ a lower block ▁▁ and a space ▁ ▁",
    "<s></s><pad><unk><0x41> are text",
]
PIECES = [
    *"abz 09_.()\n\t\r",
    "    ",
    "self",
    "é",
    "日",
    "👩",
    "▁",
    "\0",
    "\u200d",
    "\U0010ffff",
    "<s>",
    "<0x0A>",
]


def random_texts(count=200):
    source = random.Random(0)
    return ["".join(source.choices(PIECES, k=source.randrange(40))) for _ in range(count)]


@pytest.fixture(scope="module")
def bpe():
    return train(TEXTS, "bpe", 360)


@pytest.fixture(scope="module")
def unigram():
    return train(TEXTS, "unigram", 320)


@pytest.fixture(params=["bytes", "bpe", "unigram"])
def tokenizer(request):
    return ByteTokenizer() if request.param == "bytes" else request.getfixturevalue(request.param)


def test_round_trip_is_exact(tokenizer):
    for text in [*HARD, *TEXTS, *random_texts()]:
        ids = tokenizer.encode(text)
        assert ids.dtype == np.int32
        assert ids.ndim == 1
        assert tokenizer.decode(ids) == text
        assert tokenizer.bytes_of(ids) == text.encode()
        assert "".join(stream(tokenizer, ids)) == text


def test_ids_stay_in_the_vocabulary_and_special_ones_are_never_text(tokenizer):
    special = {tokenizer.pad, tokenizer.bos, tokenizer.eos}
    assert len(special) == 3
    seen = set(np.concatenate([tokenizer.encode(text) for text in [*HARD, *TEXTS]]).tolist())
    assert max(seen) < tokenizer.vocab
    assert not seen & special
    assert tokenizer.decode([tokenizer.bos, *tokenizer.encode("ok"), tokenizer.eos, tokenizer.pad]) == "ok"


def test_batches_are_the_same_as_single_texts(tokenizer):
    texts = [*HARD, *random_texts(50)]
    for ids, text in zip(tokenizer.encode_batch(texts), texts, strict=True):
        np.testing.assert_array_equal(ids, tokenizer.encode(text))
    assert tokenizer.encode_batch([]) == []


def test_streams_wait_for_whole_characters(tokenizer):
    ids = tokenizer.encode("a日👩")
    parts = list(stream(tokenizer, ids))
    assert len(parts) == len(ids) + 1
    assert "\ufffd" not in "".join(parts)
    assert "".join(stream(tokenizer, ids[:-1])) == "a日\ufffd"


def test_byte_tokens_are_bytes_plus_four():
    tokenizer = ByteTokenizer()
    assert tokenizer.encode("Aé").tolist() == [4 + 0x41, 4 + 0xC3, 4 + 0xA9]
    assert (tokenizer.vocab, tokenizer.pad, tokenizer.bos, tokenizer.eos) == (260, 0, 2, 3)


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_training_is_deterministic_and_has_the_size_asked_for(kind, request):
    size = {"bpe": 360, "unigram": 320}[kind]
    first = request.getfixturevalue(kind)
    again = train(list(TEXTS), kind, size)
    assert again == first
    assert again.fingerprint == first.fingerprint
    assert first.vocab == size
    assert (first.pad, first.bos, first.eos) == (0, 2, 3)
    assert train(TEXTS[1:], kind, size - 1).fingerprint != first.fingerprint


def test_same_tokens_as_the_library(bpe):
    processor = sentencepiece.SentencePieceProcessor(model_proto=bpe.model)
    for text in TEXTS:
        assert bpe.encode(text).tolist() == processor.encode(text)


def test_indentation_and_line_ends_are_single_tokens(bpe):
    pieces = [bpe.bytes_of([i]) for i in range(bpe.vocab)]
    assert b"    " in pieces
    assert any(piece.endswith((b":\n", b"\n\n")) for piece in pieces)


def test_long_lines_are_learned_from():
    text = "abcdefgh" * 5000
    tokenizer = train([text], "bpe", 280)
    assert len(tokenizer.encode(text)) < len(text) / 7
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_a_vocabulary_the_text_does_not_support_names_the_largest(kind):
    with pytest.raises(UsageError, match=r"tokenizer\.vocab=50000.*at most \d+") as error:
        train(TEXTS[:4], kind, 50_000)
    largest = int(str(error.value).split("at most ")[1].split()[0])
    assert train(TEXTS[:4], kind, largest).vocab == largest
    with pytest.raises(UsageError, match=f"at most {largest}"):
        train(TEXTS[:4], kind, largest + 1)


def test_a_vocabulary_too_small_names_the_smallest():
    with pytest.raises(UsageError, match=r"tokenizer\.vocab=100.*at least 3\d\d"):
        train(TEXTS, "bpe", 100)


def test_nothing_to_train_on_is_a_failure():
    with pytest.raises(Failure, match="no text"):
        train([], "bpe", 300)


def test_build_trains_once_and_then_reads(tmp_path):
    calls = []

    def texts():
        calls.append(1)
        return TEXTS

    first = build(SentencePiece(vocab=360), texts, tmp_path / "a")
    assert build(SentencePiece(vocab=360), texts, tmp_path / "a") == first
    assert len(calls) == 1
    assert build(SentencePieceFile(str(tmp_path / "a" / "tokenizer.model")), texts, tmp_path) == first
    assert build(Bytes(), texts, tmp_path) == ByteTokenizer()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["tokenizer.model"]


def test_missing_and_broken_files(tmp_path):
    with pytest.raises(UsageError, match="no file"):
        load(tmp_path / "gone.model")
    for content in (b"", b"not a model at all"):
        (tmp_path / "bad.model").write_bytes(content)
        with pytest.raises(Failure, match=r"bad\.model.*not a SentencePiece model"):
            load(tmp_path / "bad.model")


def test_foreign_models_with_a_prefix_space_and_without_bytes(tmp_path):
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["hello world", "hello there", "other words"] * 5),
        model_prefix=str(tmp_path / "foreign"),
        vocab_size=30,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    tokenizer = load(tmp_path / "foreign.model")
    assert isinstance(tokenizer, SentencePieceTokenizer)
    assert tokenizer.decode(tokenizer.encode("hello world")) == "hello world"
    assert tokenizer.decode(tokenizer.encode("hello ▁ 日")).startswith("hello")
    assert tokenizer.pad == tokenizer.eos  # SentencePiece's default has no padding token
