"""What can be wrong with a tokenizer's files: named with the file and what to do, before any text is read."""

import json

import pytest

from jaxlm.config import Corpus, Gpt2Files, SentencePieceFile, TextFiles, TokenizerJson, Whitespace, WordPieceFile
from jaxlm.config.errors import Failure, UsageError
from jaxlm.data import prepare
from jaxlm.tokenizers import build, given
from jaxlm.tokenizers.alphabet import BYTES
from tests.tokenizers import trained

BERT = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b"]
VOCAB = {character: number for number, character in enumerate(BYTES)} | {"<|endoftext|>": 256, "ab": 257}


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return json.loads((trained.write("byte_bpe", tmp_path_factory.mktemp("good")) / "tokenizer.json").read_text())


def changed(good, **parts):
    return json.dumps(good | parts)


JSONS = {
    "empty": (lambda good: "", "is damaged or no JSON: Expecting value"),
    "cut short": (lambda good: json.dumps(good)[:-200], "is damaged or no JSON"),
    "a list": (lambda good: "[1, 2]", "is not a tokenizer's file: it holds no JSON object"),
    "another object": (lambda good: '{"hidden_size": 8}', "is not a tokenizer: expected a tokenizer.json"),
    "a vocabulary": (lambda good: '{"a": 0, "b": 1}', "is not a tokenizer: expected a tokenizer.json"),
    "no kind": (lambda good: changed(good, model={"vocab": {"a": 0}}), "is not a tokenizer that the library reads"),
    "nested": (lambda good: "[" * 100_000, "is damaged or no JSON"),
    "an added token over another": (
        lambda good: changed(good, added_tokens=[good["added_tokens"][0] | {"id": 5}]),
        "have one id, 5",
    ),
    "one token, two ids": (
        lambda good: changed(good, added_tokens=[good["added_tokens"][0] | {"content": BYTES[0]}]),
        "has two ids",
    ),
    "an id beyond": (
        lambda good: changed(good, added_tokens=[one | {"id": one["id"] + 9} for one in good["added_tokens"]]),
        "the id 459, which the library reads as 450",
    ),
    "a number": (
        lambda good: changed(good, model=good["model"] | {"vocab": good["model"]["vocab"] | {"x9": -1}}),
        "the id of 'x9' is -1",
    ),
    "a word": (
        lambda good: changed(good, model=good["model"] | {"vocab": good["model"]["vocab"] | {"x9": "1"}}),
        "the id of 'x9' is '1'",
    ),
    "a name twice": (lambda good: '{"model": {"vocab": {"a": 0, "a": 1}}}', "'a' stands in it twice"),
    "merges of others": (
        lambda good: changed(good, model=good["model"] | {"merges": [["no", "such"]]}),
        "is not a tokenizer that the library reads",
    ),
}


@pytest.mark.parametrize("name", JSONS)
def test_a_json_that_is_no_tokenizer(good, name, tmp_path):
    text, message = JSONS[name]
    (tmp_path / "bad.json").write_text(text(good))
    with pytest.raises(Failure) as error:
        given(TokenizerJson(str(tmp_path / "bad.json"), eos="<|end_of_text|>"))
    assert "bad.json" in str(error.value)
    assert message in str(error.value)


@pytest.mark.parametrize(
    "config",
    [
        TokenizerJson("/gone/x.json"),
        Gpt2Files("/gone/x.json"),
        WordPieceFile("/gone/x"),
        SentencePieceFile("/gone/x"),
    ],
)
def test_a_file_that_is_not_there(config):
    with pytest.raises(UsageError, match=r"tokenizer\.path: there is no file '/gone/x"):
        given(config)


@pytest.mark.parametrize("config", [TokenizerJson(), Gpt2Files(), WordPieceFile()])
def test_no_file_named(config):
    with pytest.raises(UsageError, match=r"tokenizer\.path is empty: name the file"):
        given(config)


def test_a_directory_without_the_file_and_one_for_a_file(tmp_path):
    with pytest.raises(UsageError, match=r"there is no file '.*tokenizer\.json'"):
        given(TokenizerJson(str(tmp_path)))
    with pytest.raises(Failure, match=r"cannot read the tokenizer .*: Is a directory"):
        given(WordPieceFile(str(tmp_path)))


def test_settings_that_are_damaged_or_name_other_tokens(tmp_path):
    trained.write("byte_bpe", tmp_path)
    settings = tmp_path / "tokenizer_config.json"
    settings.write_text("{")
    with pytest.raises(Failure, match=r"tokenizer_config\.json' is damaged"):
        given(TokenizerJson(str(tmp_path)))
    settings.write_text('{"eos_token": "<|im_end|>"}')
    with pytest.raises(UsageError, match=r"tokenizer\.json' has no token '<\|im_end\|>'.*--tokenizer\.eos TOKEN"):
        given(TokenizerJson(str(tmp_path)))
    settings.write_text('{"eos_token": "<|eot_id|>", "chat_template": 3}')
    with pytest.raises(Failure, match=r"tokenizer_config\.json' is damaged: its chat_template"):
        given(TokenizerJson(str(tmp_path)))


@pytest.mark.parametrize(
    ("vocab", "merges", "kind", "message"),
    [
        (VOCAB, "#version: 0.2\na b\n", None, ""),
        (VOCAB | {"zz": 5}, "a b", Failure, "have one id, 5"),
        (VOCAB, "a", Failure, "merges.txt' is damaged: line 1 is not a merge of two tokens: 'a'"),
        (VOCAB, "#version: 0.2\na b\nb b\n", Failure, "lacks a token of merge 2, 'b' with 'b'"),
        ({"a": 0, "<|endoftext|>": 1}, "", Failure, "is not a byte-level vocabulary: 255 of 256 bytes"),
        ({"a": 0}, "", UsageError, "has no token '<|endoftext|>': state the one that ends, --tokenizer.end TOKEN"),
        (VOCAB, None, UsageError, "tokenizer.merges: there is no file"),
        (VOCAB, b"\xff\xfe", Failure, "merges.txt' is damaged: invalid start byte at byte 0, not UTF-8"),
    ],
)
def test_gpt2_files(tmp_path, vocab, merges, kind, message):
    (tmp_path / "vocab.json").write_text(json.dumps(vocab))
    if merges is not None:
        (tmp_path / "merges.txt").write_bytes(merges if isinstance(merges, bytes) else merges.encode())
    if kind is None:
        assert given(Gpt2Files(str(tmp_path / "vocab.json"))).encode("ab").tolist() == [257]
        return
    with pytest.raises(kind) as error:
        given(Gpt2Files(str(tmp_path / "vocab.json")))
    assert message in str(error.value)


def test_vocab_txt(tmp_path):
    path = tmp_path / "vocab.txt"
    for newline in ("\n", "\r\n"):
        path.write_bytes(newline.join([*BERT, ""]).encode())
        assert given(WordPieceFile(str(path))).encode("A b c").tolist() == [5, 6, 1]
    path.write_text("\n".join([*BERT, "a"]))
    with pytest.raises(Failure, match=r"vocab\.txt' is damaged: 'a' stands on line 6 and 8"):
        given(WordPieceFile(str(path)))
    path.write_text("a\nb\n[PAD]\n")
    with pytest.raises(UsageError, match=r"is not BERT's vocabulary: it has no \[UNK\], \[CLS\], \[SEP\]"):
        given(WordPieceFile(str(path)))


def test_words_that_are_not_there(tmp_path):
    with pytest.raises(Failure, match="the training documents hold no text"):
        build(Whitespace(), lambda: [" \n "], tmp_path)
    with pytest.raises(UsageError, match=r"tokenizer\.vocab=4: 4 tokens are special ones"):
        build(Whitespace(vocab=4), lambda: ["a"], tmp_path)


def test_more_tokens_than_rows_is_said_before_any_text_is_read(tmp_path):
    trained.write("byte_bpe", tmp_path / "files")
    config = TokenizerJson(str(tmp_path / "files"))
    with pytest.raises(
        UsageError, match=r"the tokenizer has 453 tokens, model\.vocab=452 rows: set model\.vocab to 453"
    ):
        prepare(Corpus(source=TextFiles(("/gone",))), config, tmp_path / "cache", rows=452)
    with pytest.raises(UsageError, match="/gone"):  # the text comes next
        prepare(Corpus(source=TextFiles(("/gone",))), config, tmp_path / "cache", rows=453)
    with pytest.raises(UsageError, match=r"tokenizer\.path: there is no file"):
        prepare(Corpus(source=TextFiles(("/gone",))), TokenizerJson("/missing"), tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
