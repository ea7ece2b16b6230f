"""Files of other libraries as tokenizers: one protocol, no special token out of a text, one home in the run."""

import dataclasses
import json
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from jaxlm.config import Gpt2Files, SentencePiece, TokenizerJson, Whitespace, WordPieceFile
from jaxlm.config.errors import Failure, UsageError
from jaxlm.data import dataset
from jaxlm.tokenizers import ByteTokenizer, Tokenizer, build, given, stream, train
from jaxlm.tokenizers.build import keep, reopen
from tests.tokenizers import trained
from tests.tokenizers.lines import HARD

LOSSLESS = ("byte_bpe", "fallback", "gpt2", "bytes", "sentencepiece")
KINDS = (*trained.KINDS, "gpt2", "vocab.txt", "whitespace", "bytes", "sentencepiece")


@pytest.fixture(scope="module")
def configs(tmp_path_factory):
    """Kind -> its config; files are made once."""
    path = tmp_path_factory.mktemp("files")
    found = {kind: TokenizerJson(str(trained.write(kind, path / kind))) for kind in trained.KINDS}
    tree = json.loads((path / "byte_bpe/tokenizer.json").read_text())
    model = tree["model"]
    model["vocab"]["<|endoftext|>"] = len(model["vocab"])
    (path / "vocab.json").write_text(json.dumps(model["vocab"]))
    lines = ["#version: 0.2", *(" ".join(pair) for pair in model["merges"])]
    (path / "merges.txt").write_text("\n".join(lines) + "\n")
    places = json.loads((path / "wordpiece/tokenizer.json").read_text())["model"]["vocab"]
    (path / "vocab.txt").write_text("\n".join(sorted(places, key=places.get)) + "\n")
    return found | {
        "gpt2": Gpt2Files(str(path / "vocab.json")),
        "vocab.txt": WordPieceFile(str(path / "vocab.txt")),
        "whitespace": Whitespace(vocab=60),
        "bytes": ByteTokenizer(),
        "sentencepiece": SentencePiece(vocab=400),
    }


@pytest.fixture(scope="module")
def made(configs, tmp_path_factory):
    place = tmp_path_factory.mktemp("made")
    return {
        kind: one if isinstance(one, ByteTokenizer) else build(one, lambda: trained.TEXTS, place / kind)
        for kind, one in configs.items()
    }


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def tokenizer(made, kind):
    return made[kind]


def special(tokenizer):
    return {tokenizer.bos, tokenizer.eos, tokenizer.pad}


def test_the_protocol(tokenizer):
    assert isinstance(tokenizer, Tokenizer)
    assert all(0 <= token < tokenizer.vocab for token in special(tokenizer))
    for text in [*HARD, *trained.TEXTS]:
        ids = tokenizer.encode(text)
        assert ids.dtype == np.int32
        assert ids.ndim == 1
        assert set(ids.tolist()) <= set(range(tokenizer.vocab)) - special(tokenizer)
    for ids, text in zip(tokenizer.encode_batch(HARD), HARD, strict=True):
        np.testing.assert_array_equal(ids, tokenizer.encode(text))
    assert tokenizer.encode_batch([]) == []


def test_round_trips(tokenizer, kind):
    """Of any text where the tokenizer is lossless, else of its own words."""
    for text in [*HARD, *trained.TEXTS] if kind in LOSSLESS else ["the quick brown fox"]:
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert tokenizer.decode([tokenizer.bos, *ids, tokenizer.eos, tokenizer.pad]) == text
        raw = tokenizer.bytes_of(ids)
        assert raw in (text.encode(), b" " + text.encode())
        assert "".join(stream(tokenizer, ids)) == raw.decode()
    assert tokenizer.bytes_of([*special(tokenizer)]) == b""


def test_the_text_of_a_special_token_is_text(made, tokenizer):
    """None of any kind, inside words or alone; with the byte-level ones the text comes back whole."""
    written = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|endoftext|>", "<s>", "</s>", "<pad>"]
    written += ["[CLS]", "[SEP]", "[PAD]", "[MASK]", "<0x0A>"]
    for text in [*written, " ".join(written), "".join(written), "a</s>b [SEP]."]:
        ids = tokenizer.encode(text).tolist()
        assert ids
        assert not special(tokenizer) & set(ids)
        assert getattr(tokenizer, "mask", None) not in ids
        for kind in ("byte_bpe", "gpt2", "bytes"):
            assert made[kind].decode(made[kind].encode(text)) == text


def test_the_model_of_pieces_itself_would_give_special_ones(made):
    """What the guard is for: the library finds "</s>" among the pieces."""
    found = made["unigram"].library.encode("a</s>b", add_special_tokens=False).ids
    assert made["unigram"].eos in found


def test_offsets(tokenizer, kind):
    for text in [*HARD, *trained.TEXTS, "a</s>b", "x ▁ y"]:
        ids, offsets = tokenizer.encode_with_offsets(text)
        np.testing.assert_array_equal(ids, tokenizer.encode(text))
        assert offsets.shape == (len(ids), 2)
        assert offsets.dtype == np.int32
        assert np.all(offsets[:, 0] <= offsets[:, 1])
        assert np.all(np.diff(offsets[:, 0]) >= 0)
        if kind in ("byte_bpe", "gpt2", "bytes", "sentencepiece"):
            assert set(range(len(text))) == {one for begin, end in offsets for one in range(begin, end)}
            for token, (begin, end) in zip(ids, offsets, strict=True):
                whole = tokenizer.bytes_of([token])
                assert whole in text[begin:end].encode()
                assert whole == text[begin:end].encode() or len(text[begin:end].encode()) > len(whole)


def test_offsets_find_an_answer_in_a_text(tokenizer, kind):
    """By what fine-tuning puts its loss on."""
    question, answer = "the quick brown fox jumps ", "over the lazy"
    ids, offsets = tokenizer.encode_with_offsets(question + answer)
    chosen = [token for token, (begin, _) in zip(ids, offsets, strict=True) if begin >= len(question) - 1]
    assert tokenizer.decode(chosen).strip().endswith("over the lazy")
    assert "jumps" not in tokenizer.decode(chosen)


def test_one_bos_at_most(made):
    """Post-processors put tokens around a text; `encode` leaves that to the data."""
    for kind in trained.KINDS:
        ids = made[kind].encode("the quick brown fox").tolist()
        assert not special(made[kind]) & set(ids)
    assert len(made["wordpiece"].encode("the quick brown fox " * 50)) > 128  # no truncation, no padding
    assert len(made["wordpiece"].encode("the")) < 5


def test_documents_have_one_bos_and_one_eos(tokenizer, tmp_path):
    """As they are written for training, whatever they hold."""
    texts = ["the quick brown fox", "<s>a</s><|begin_of_text|><|end_of_text|> [CLS] [SEP] <|endoftext|>", "", "<s>"]
    dataset.write(dataset.texts(texts, tokenizer), tokenizer, tmp_path / "tokens")
    data = dataset.load(tmp_path / "tokens")
    assert data.documents == len(texts)
    for begin, end in pairwise(data.offsets.tolist()):
        first, *middle, last = data.tokens[begin:end].tolist()
        assert (first, last) == (tokenizer.bos, tokenizer.eos)
        assert not {tokenizer.bos, tokenizer.eos, tokenizer.pad} & set(middle)


def test_special_tokens_are_those_of_the_settings(made):
    names = {kind: (one.begin, one.end, one.padding) for kind, one in made.items() if hasattr(one, "begin")}
    assert names == {
        "byte_bpe": ("<|begin_of_text|>", "<|end_of_text|>", "<|end_of_text|>"),
        "wordpiece": ("[CLS]", "[SEP]", "[PAD]"),
        "unigram": ("", "</s>", "<pad>"),
        "fallback": ("<s>", "</s>", "</s>"),
        "gpt2": ("<|endoftext|>",) * 3,
        "vocab.txt": ("[CLS]", "[SEP]", "[PAD]"),
        "whitespace": ("<s>", "</s>", "<pad>"),
    }
    for kind in ("wordpiece", "vocab.txt"):
        assert made[kind].decode([made[kind].mask]) == ""
        assert made[kind].library.id_to_token(made[kind].mask) == "[MASK]"


def test_special_tokens_without_settings(configs, tmp_path):
    """Those that the post-processor puts around a text, then those of special_tokens_map.json, then stated ones."""
    alone = tmp_path / "tokenizer.json"
    shutil.copy(f"{configs['wordpiece'].path}/tokenizer.json", alone)
    found = given(TokenizerJson(str(alone)))
    assert (found.begin, found.end, found.padding) == ("[CLS]", "[SEP]", "[SEP]")
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"pad_token": {"content": "[PAD]"}}))
    assert given(TokenizerJson(str(tmp_path))).padding == "[PAD]"
    stated = given(TokenizerJson(str(tmp_path), bos="[MASK]", eos="[PAD]", pad="[UNK]"))
    assert (stated.begin, stated.end, stated.padding) == ("[MASK]", "[PAD]", "[UNK]")
    shutil.copy(f"{configs['byte_bpe'].path}/tokenizer.json", alone)
    (tmp_path / "special_tokens_map.json").unlink()
    with pytest.raises(UsageError, match=r"names no token that ends a text: state one, --tokenizer\.eos TOKEN"):
        given(TokenizerJson(str(tmp_path)))
    assert given(TokenizerJson(str(tmp_path), eos="<|eot_id|>")).begin == "<|begin_of_text|>"


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "bytes"])
def test_kept_with_a_run_and_read_back_from_it_alone(made, configs, kind, tmp_path):
    keep(made[kind], tmp_path)
    gone = dataclasses.replace(configs[kind], **({"path": "/gone"} if hasattr(configs[kind], "path") else {}))
    again = reopen(gone, tmp_path)
    assert again == made[kind]
    assert again.fingerprint == made[kind].fingerprint
    assert not [one for one in tmp_path.iterdir() if one.suffix not in (".model", ".json")]


@pytest.mark.parametrize("kind", ["byte_bpe", "sentencepiece"])
def test_another_tokenizer_does_not_take_a_kept_one_s_place(made, configs, kind, tmp_path):
    other = train(trained.TEXTS, "bpe", 390)
    if kind == "byte_bpe":
        other = given(dataclasses.replace(configs[kind], eos="<|eot_id|>"))
    keep(made[kind], tmp_path)
    keep(made[kind], tmp_path)
    if kind == "byte_bpe":  # another template is the same tokenizer
        keep(dataclasses.replace(made[kind], template="{{ messages }}"), tmp_path)
    before = {one.name: one.read_bytes() for one in tmp_path.iterdir()}
    with pytest.raises(Failure, match="holds another tokenizer than the one that is read now: put back the file"):
        keep(other, tmp_path)
    assert {one.name: one.read_bytes() for one in tmp_path.iterdir()} == before


def test_fingerprints_tell_tokenizers_apart(made, configs, tmp_path):
    prints = {one.fingerprint for one in made.values()}
    assert made["vocab.txt"] == made["wordpiece"]  # one tokenizer from two kinds of file
    assert len(prints) == len(made) - 1
    other = given(dataclasses.replace(configs["byte_bpe"], eos="<|eot_id|>"))
    assert other.fingerprint not in prints
    cased = given(dataclasses.replace(configs["vocab.txt"], lowercase=False))
    assert cased.fingerprint not in prints
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}")
    shutil.copytree(configs["byte_bpe"].path, tmp_path, dirs_exist_ok=True)
    talking = given(TokenizerJson(str(tmp_path)))
    assert talking.template == "{{ messages }}"
    assert talking.fingerprint == made["byte_bpe"].fingerprint  # it decides no token


def test_words_are_the_commonest_and_the_rest_is_unknown(tmp_path):
    texts = ["b a c", "a b <s> </s> <unk>", "a b d"]
    found = build(Whitespace(vocab=7), lambda: texts, tmp_path / "a")
    assert [found.library.id_to_token(token) for token in range(7)] == [
        "<pad>",
        "<unk>",
        "<s>",
        "</s>",
        "a",
        "b",
        "c",
    ]
    assert found.encode("a d </s> <s> b").tolist() == [4, 1, 1, 1, 5]
    assert found.decode(found.encode("a  d\nb")) == "a <unk> b"
    assert build(Whitespace(vocab=7), lambda: texts[::-1], tmp_path / "b") == found
    assert build(Whitespace(vocab=7), lambda: pytest.fail("trained again"), tmp_path / "a") == found
    assert build(Whitespace(vocab=99), lambda: texts, tmp_path / "c").vocab == 8


def test_capitals(made, configs):
    ids = made["vocab.txt"].encode("THE Quick café")
    np.testing.assert_array_equal(ids, made["vocab.txt"].encode("the quick cafe"))
    cased = given(dataclasses.replace(configs["vocab.txt"], lowercase=False))
    assert cased.unknown in cased.encode("THE")


def test_an_end_token_that_is_also_the_unknown_one(configs, tmp_path):
    """As GPT-2's settings have it: it stays a token that no text gives and that is no text."""
    tree = json.loads(Path(configs["byte_bpe"].path, "tokenizer.json").read_text())
    tree["model"]["unk_token"] = "<|end_of_text|>"
    tree["model"]["vocab"]["<|end_of_text|>"] = 451
    tree["model"]["vocab"]["<|begin_of_text|>"] = 450
    (tmp_path / "tokenizer.json").write_text(json.dumps(tree))
    found = given(TokenizerJson(str(tmp_path), eos="<|end_of_text|>"))
    assert found.unknown is None
    assert found.eos not in found.encode("a<|end_of_text|>")
    assert found.decode([*found.encode("a"), found.eos]) == "a"
    assert found.bytes_of([found.eos]) == b""
