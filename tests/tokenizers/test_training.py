"""Tokenizers that are trained with special tokens of their own, by an experiment and by the command line."""

import json

import numpy as np
import pytest

from jaxlm.cli import main
from jaxlm.config import Bytes, SentencePiece, SentencePieceFile, TokenizerJson, Whitespace, WordPiece
from jaxlm.config.data import kept
from jaxlm.config.errors import UsageError
from jaxlm.config.special import MASKS, Special
from jaxlm.tokenizers import build, given
from jaxlm.tokenizers.build import keep, learned
from jaxlm.tokenizers.special import of, special

TEXTS = [f"The cat sat on mat number {n}, and the dog, unhappily, on another one." for n in range(40)]
NAMED = {"special": ("<mask>", "<x>"), "sentinels": 3}
CONFIGS = {
    "bpe": SentencePiece("bpe", 340, **NAMED),
    "unigram": SentencePiece("unigram", 300, **NAMED),
    "bytes": Bytes(**NAMED),
    "whitespace": Whitespace(40, **NAMED),
    "wordpiece": WordPiece(120, special=("<x>",), sentinels=3),
}
TEXT_OF_TOKENS = "a <mask> b <extra_id_0> <x> [MASK] </s> cat"


@pytest.fixture(scope="module", params=CONFIGS)
def trained(request):
    config = CONFIGS[request.param]
    return config, given(config) or learned(config, TEXTS)


def test_special_tokens_are_known_before_training(trained):
    config, tokenizer = trained
    before, after = special(config), of(tokenizer)
    assert after.vocab <= before.vocab
    assert (before.pad, before.bos, before.eos) == (after.pad, after.bos, after.eos)
    assert dict(before.others) == dict(after.others)
    assert set(dict(after.others)) == {"<mask>", "<x>", "<extra_id_0>", "<extra_id_1>", "<extra_id_2>"}
    assert len(set(after.ids)) == 8
    assert after.mask("it") == dict(after.others)[MASKS[0]]
    assert after.sentinels(3, "it") == tuple(dict(after.others)[f"<extra_id_{n}>"] for n in range(3))


def test_no_text_gives_one(trained):
    _, tokenizer = trained
    ids = np.concatenate([tokenizer.encode(TEXT_OF_TOKENS), *tokenizer.encode_batch(TEXTS)])
    assert not set(ids.tolist()) & set(of(tokenizer).ids)
    assert tokenizer.bytes_of(of(tokenizer).ids) == b""
    assert tokenizer.decode([*of(tokenizer).ids, *tokenizer.encode("cat"), of(tokenizer).eos]) == "cat"


def test_what_is_kept_is_the_same(trained, tmp_path):
    config, tokenizer = trained
    keep(tokenizer, tmp_path)
    again = given(kept(config, tmp_path))
    assert again.fingerprint == tokenizer.fingerprint
    assert of(again) == of(tokenizer)
    np.testing.assert_array_equal(again.encode(TEXT_OF_TOKENS), tokenizer.encode(TEXT_OF_TOKENS))
    assert build(config, lambda: TEXTS, tmp_path / "other").fingerprint == tokenizer.fingerprint, "learned twice"


def test_bytes_with_names_are_others():
    assert given(Bytes()).fingerprint != given(Bytes(special=("<mask>",))).fingerprint
    assert given(Bytes(sentinels=2)).vocab == 262


def test_wordpiece_cuts_as_the_library_does():
    """Longest pieces first, from the vocabulary that was learned."""
    tokenizer = learned(CONFIGS["wordpiece"], TEXTS)
    vocabulary = tokenizer.description["model"]["vocab"]
    assert list(vocabulary.values()) == sorted(vocabulary.values())
    for word in ["the", "cat", "unhappily", "another"]:
        left, pieces = word, []
        while left:
            prefix = "##" if pieces else ""
            size = max(n for n in range(1, len(left) + 1) if prefix + left[:n] in vocabulary)
            pieces.append(prefix + left[:size])
            left = left[size:]
        assert [vocabulary[piece] for piece in pieces] == tokenizer.encode(word.upper()).tolist()
    cased = learned(WordPiece(120, lowercase=False), TEXTS)
    assert cased.encode("The").tolist() != cased.encode("the").tolist()


def test_what_is_missing_is_named():
    plain = of(given(Bytes()))
    with pytest.raises(UsageError, match=r"masked_lm needs a mask token, .* --tokenizer.special '<mask>'"):
        plain.mask("masked_lm")
    with pytest.raises(UsageError, match=r"it needs 9 sentinel tokens .*<extra_id_8>.* has 2 .*sentinels 9"):
        of(given(Bytes(sentinels=2))).sentinels(9, "it")
    with pytest.raises(UsageError, match=r"it needs the special tokens <a>, <b>, and the tokenizer has no <b>"):
        of(given(Bytes(special=("<a>",)))).named(("<a>", "<b>"), "it")
    assert Special(9, 0, 1, 2, (("[MASK]", 5),)).mask("it") == 5


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (Bytes(special=("a b",)), "'a b' is no name of a token"),
        (Bytes(special=("",)), "'' is no name of a token"),
        (Bytes(special=("<s>",)), "'<s>' is a special token already"),
        (Whitespace(9, ("<a>", "<a>")), "'<a>' is a special token already"),
        (WordPiece(99, special=("<mask>",)), "WordPiece has .*MASK.* already"),
        (WordPiece(8), "5 tokens are special ones, and a character needs four"),
        (Whitespace(7, sentinels=3), "7 tokens are special ones"),
    ],
)
def test_wrong_requests(config, message):
    with pytest.raises(UsageError, match=message):
        given(config) or learned(config, TEXTS)


# --- the command line --------------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("\n".join(TEXTS))
    return tmp_path


@pytest.mark.parametrize("kind", ["bpe", "unigram", "wordpiece", "whitespace", "byte"])
def test_command(here, capsys, kind):
    extra = ["--special", "<x>"] if kind == "wordpiece" else ["--special", "<mask>", "<x>"]
    words = ["tokenizer", "train", "a.txt", "--kind", kind, "--vocab", "300", "--out", "out"]
    if kind == "bpe":
        words[words.index("300")] = "340"
    assert main([*words, *extra, "--sentinels", "3"]) == 0
    out = capsys.readouterr().out
    assert "beginning 2, end 3" in out
    assert ("1 of 1 texts come back exactly" in out) == (kind in ("bpe", "unigram", "byte"))
    read = given(TokenizerJson("out"))
    assert dict(of(read).others).keys() >= {"<mask>", "<x>", "<extra_id_2>"}
    if kind in ("bpe", "unigram"):
        assert of(given(SentencePieceFile("out/tokenizer.model"))) == of(read)
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained("out")
    for text in [TEXTS[3], "unhappily the CAT"]:
        assert theirs(text)["input_ids"] == [read.bos, *read.encode(text).tolist()]
    assert json.loads((here / "out/tokenizer_config.json").read_text())["mask_token"] in MASKS


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "expected: jaxlm tokenizer train"),
        (["train", "a.txt", "--kind", "bpp", "--out", "x"], "invalid choice: 'bpp'"),
        (["train", "--kind", "bpe", "--out", "x"], "learns from text: name files"),
        (["train", "b.txt", "--kind", "bpe", "--out", "x"], "there is no file"),
        (["train", "a.txt", "--kind", "bpe", "--out", "."], "is there already"),
        (["train", "a.txt", "--kind", "bpe", "--out", "x", "--vocab", "0"], "--vocab 0: expected 1 or more"),
        (["train", "a.txt", "--kind", "bpe", "--out", "x", "--vocab", "90"], "at least"),
    ],
)
def test_wrong_words(here, capsys, words, message):
    assert main(["tokenizer", *words]) == 2
    assert message in capsys.readouterr().err
    assert [one.name for one in here.iterdir()] == ["a.txt"]


def test_no_text(here, capsys):
    (here / "b.txt").write_bytes(b"\xff\xfe\x00")
    assert main(["tokenizer", "train", "b.txt", "--kind", "bpe", "--out", "x"]) == 1
    assert "is not UTF-8 text" in capsys.readouterr().err
