"""Tokens, offsets and text are those of the reference libraries, on a thousand lines of each kind of text."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from jaxlm.config import Gpt2Files, SentencePieceFile, TokenizerJson, WordPieceFile
from jaxlm.tokenizers import given
from tests.tokenizers import lines, trained

transformers = pytest.importorskip("transformers")
KINDS = (*trained.KINDS, "vocab.txt", "vocab.txt, cased", "gpt2", "neox")
PIECES = {"en": "spm_test_en_unigram", "ja": "spm_test_ja", "t5": "seqio_test_spm"}


@pytest.fixture(scope="module", params=lines.TEXTS)
def texts(request):
    found = lines.TEXTS[request.param]()
    assert len(found) == lines.COUNT
    return found


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """`pairs(kind)`: (ours, transformers' tokenizer of the same files), made once."""
    place, made = tmp_path_factory.mktemp("parity"), {}

    def pair(kind):
        if kind not in made:
            made[kind] = make(kind, place / kind.replace(" ", "-"))
        return made[kind]

    return pair


def make(kind, path):
    path.mkdir(exist_ok=True)
    if kind in trained.KINDS:
        trained.write(kind, path)
        return given(TokenizerJson(str(path))), transformers.AutoTokenizer.from_pretrained(path)
    if kind.startswith("vocab.txt"):
        trained.write("wordpiece", path)
        places = json.loads((path / "tokenizer.json").read_text())["model"]["vocab"]
        (path / "vocab.txt").write_text("\n".join(sorted(places, key=places.get)) + "\n")
        lowercase = kind == "vocab.txt"
        theirs = transformers.BertTokenizerFast(vocab=str(path / "vocab.txt"), do_lower_case=lowercase)
        return given(WordPieceFile(str(path / "vocab.txt"), lowercase=lowercase)), theirs
    files = lines.folder() / "tokenizers"
    if kind == "gpt2":
        vocab, merges = str(files / "gpt2_encoder.json"), str(files / "gpt2_vocab.bpe")
        return given(Gpt2Files(vocab, merges)), transformers.GPT2TokenizerFast(vocab=vocab, merges=merges)
    shutil.copy(files / "neox20b_tokenizer.json", path / "tokenizer.json")
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"}
    (path / "tokenizer_config.json").write_text(json.dumps(settings))
    return given(TokenizerJson(str(path))), transformers.AutoTokenizer.from_pretrained(path)


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_are_those_of_transformers(pairs, kind, texts):
    ours, theirs = pairs(kind)
    wanted = theirs(texts, add_special_tokens=False)["input_ids"]
    assert [ids.tolist() for ids in ours.encode_batch(texts)] == wanted
    for text, ids in zip(texts[::50], wanted[::50], strict=True):
        assert ours.encode(text).tolist() == ids
    assert sum(map(len, wanted)) > lines.COUNT
    assert (ours.vocab, ours.eos) == (len(theirs), wanted_eos(theirs))


def test_a_merge_less_is_seen(pairs, texts):
    """The control: without the merge of the token that a text of these has last, its tokens are others."""
    ours, theirs = pairs("byte_bpe")
    wanted = theirs(texts, add_special_tokens=False)["input_ids"]
    tree = json.loads(ours.model)
    names = {number: token for token, number in tree["model"]["vocab"].items()}
    last = next(names[token] for ids in reversed(wanted) for token in ids if len(names[token]) > 1)
    tree["model"] |= {"merges": [pair for pair in tree["model"]["merges"] if "".join(pair) != last]}
    tree["model"] |= {"ignore_merges": False}
    other = dataclasses.replace(ours, model=json.dumps(tree).encode())
    assert [ids.tolist() for ids in other.encode_batch(texts)] != wanted


def wanted_eos(theirs):
    return theirs.sep_token_id if theirs.eos_token_id is None else theirs.eos_token_id


@pytest.mark.parametrize("kind", KINDS)
def test_offsets_are_those_of_transformers(pairs, kind, texts):
    """Where theirs leaves a space off a token's front, ours begins with it: that is the one difference allowed."""
    ours, theirs = pairs(kind)
    for text in texts[::4]:
        ids, offsets = ours.encode_with_offsets(text)
        found = theirs(text, add_special_tokens=False, return_offsets_mapping=True)
        assert ids.tolist() == found["input_ids"]
        for (begin, end), (first, last) in zip(offsets.tolist(), found["offset_mapping"], strict=True):
            assert end == last or not text[last:end].strip()
            assert begin == first or not text[begin:first].strip()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "cased" not in kind])
def test_text_is_that_of_transformers(pairs, kind, texts):
    ours, theirs = pairs(kind)
    for text in texts[::10]:
        ids = ours.encode(text)
        wanted = theirs.decode(ids.tolist(), clean_up_tokenization_spaces=False)
        assert ours.decode(ids) == wanted
        assert ours.bytes_of(ids).decode("utf-8", "replace") in (wanted, " " + wanted)


@pytest.mark.parametrize("kind", KINDS)
def test_special_text_is_text_as_transformers_has_it_when_asked(pairs, kind):
    """Its `split_special_tokens`; where they are pieces of a model that still gives them, and ours does not."""
    ours, theirs = pairs(kind)
    for token in theirs.all_special_tokens:
        text = f"the{token}fox {token} {token}"
        ids = ours.encode(text).tolist()
        special = {theirs.convert_tokens_to_ids(one) for one in theirs.all_special_tokens} - {ours.unknown}
        assert not special & set(ids)
        asked = theirs(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        assert ids == asked or special & set(asked)
        assert kind == "unigram" or ids == asked


@pytest.mark.parametrize("name", PIECES)
def test_tokens_are_those_of_sentencepiece(name, texts):
    sentencepiece = pytest.importorskip("sentencepiece")
    path = str(lines.folder() / f"tokenizers/{PIECES[name]}.model")
    ours, theirs = given(SentencePieceFile(path)), sentencepiece.SentencePieceProcessor(model_file=path)
    texts = [text for text in texts if "▁" not in text]
    for ids, wanted in zip(ours.encode_batch(texts), theirs.encode(texts), strict=True):
        np.testing.assert_array_equal(ids, wanted)


@pytest.mark.parametrize("name", PIECES)
def test_offsets_of_sentencepiece(name, texts):
    """Those models rewrite characters; the places are of the text as it was."""
    ours = given(SentencePieceFile(str(lines.folder() / f"tokenizers/{PIECES[name]}.model")))
    for text in [*texts[::10], "ﬁ ▁ Ａ  ①", ""]:
        ids, offsets = ours.encode_with_offsets(text)
        np.testing.assert_array_equal(ids, ours.encode(text))
        assert np.all(offsets >= 0)
        assert np.all(offsets <= len(text))
        assert np.all(offsets[:, 0] <= offsets[:, 1])
        covered = {place for begin, end in offsets for place in range(begin, end)}
        missed = {text[place] for place in set(range(len(text))) - covered}
        assert all(one.isspace() or not one.isprintable() or one in IGNORED for one in missed), missed


IGNORED = "\ufe0f\u200d"
"""Joiners, which normalization takes away."""
