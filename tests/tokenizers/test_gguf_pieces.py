"""SentencePiece models out of GGUF files give the tokens of SentencePiece, on a thousand lines of each text."""

import io

import gguf
import numpy as np
import pytest
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
from sentencepiece.sentencepiece_model_pb2 import ModelProto

from jaxlm.config.errors import Failure
from jaxlm.tokenizers.gguf import tokenizer
from jaxlm.tokenizers.huggingface import HuggingFaceTokenizer
from jaxlm.tokenizers.sentencepiece import SentencePieceTokenizer
from tests.interop import ggufs
from tests.tokenizers import lines

REAL = {"english": "spm_test_en_unigram", "real japanese": "spm_test_ja"}


@pytest.fixture(scope="module")
def llama():
    """Byte pairs with a space before each text and bytes for what has no piece, as LLaMA's are."""
    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(lines.code()[:600] + [*lines.SENTENCES] * 20),
        model_writer=model,
        model_type="bpe",
        vocab_size=1500,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    return model.getvalue()


def fields(path, model, kind):
    """What a file that holds a tokenizer says of it."""
    writer = gguf.GGUFWriter(path, "llama")
    ggufs.pieces(writer, model, kind)
    writer.add_tensor("token_embd.weight", np.zeros((2, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return {name: field.contents() for name, field in gguf.GGUFReader(path).fields.items()}


def ids(found, texts):
    return [one.tolist() for one in found.encode_batch(texts)]


@pytest.mark.parametrize("kind", lines.TEXTS)
def test_byte_pairs(llama, tmp_path, kind):
    texts = lines.TEXTS[kind]()
    wanted = SentencePieceProcessor(model_proto=llama).encode(texts)
    said = fields(tmp_path / "a.gguf", llama, "llama")
    found = tokenizer(said, tmp_path / "a.gguf")
    assert ids(found, texts) == wanted
    assert isinstance(found, HuggingFaceTokenizer)
    assert (found.bos, found.eos, found.template) == (1, 2, "{{ messages[0].content }}")
    # The control: without the space that is put before each text.
    wrong = said | {"tokenizer.ggml.add_space_prefix": False}
    assert ids(tokenizer(wrong, tmp_path / "a.gguf"), texts) != wanted


def test_scores_say_what_is_joined_first(llama, tmp_path):
    texts, said = lines.code(), fields(tmp_path / "a.gguf", llama, "llama")
    scores = said["tokenizer.ggml.scores"]
    wrong = said | {"tokenizer.ggml.scores": scores[:259] + scores[:258:-1]}
    wanted = SentencePieceProcessor(model_proto=llama).encode(texts)
    assert ids(tokenizer(wrong, tmp_path / "a.gguf"), texts) != wanted


@pytest.mark.nightly
@pytest.mark.parametrize("kind", REAL)
def test_unigrams_of_published_models(tmp_path, kind):
    model = (lines.folder() / f"tokenizers/{REAL[kind]}.model").read_bytes()
    texts = lines.TEXTS[kind]()
    wanted = SentencePieceProcessor(model_proto=model).encode(texts)
    said = fields(tmp_path / "a.gguf", model, "t5")
    found = tokenizer(said, tmp_path / "a.gguf")
    assert ids(found, texts) == wanted
    assert isinstance(found, SentencePieceTokenizer)
    assert (found.bos, found.eos) == (1, 2)
    # The control: without the table of characters that are rewritten, and with a space less.
    wrong = said | {"tokenizer.ggml.precompiled_charsmap": [], "tokenizer.ggml.add_space_prefix": False}
    assert ids(tokenizer(wrong, tmp_path / "a.gguf"), texts) != wanted


def test_pieces_of_the_user(llama, tmp_path):
    """Are found whole in a text, as SentencePiece and llama.cpp do; a tokenizer.json cannot say so."""
    model = ModelProto.FromString(llama)
    model.pieces.add(piece="<|turn|>", score=0.0, type=ModelProto.SentencePiece.USER_DEFINED)
    found = tokenizer(fields(tmp_path / "a.gguf", model.SerializeToString(), "llama"), tmp_path / "a.gguf")
    assert isinstance(found, SentencePieceTokenizer)
    texts = ["one<|turn|>two", "</s><|turn|>"]
    assert ids(found, texts) == SentencePieceProcessor(model_proto=model.SerializeToString()).encode(texts)
    assert all(len(model.pieces) - 1 in one for one in ids(found, texts))


def test_what_is_damaged(llama, tmp_path):
    path = tmp_path / "a.gguf"
    whole = fields(path, llama, "llama")
    tokens, kinds = whole["tokenizer.ggml.tokens"], whole["tokenizer.ggml.token_type"]
    for name, value, said in (
        ("model", "plamo2", "no tokenizer 'plamo2' is known here; there are gpt2, .*; llama and t5"),
        ("scores", [0.0], "1500 and 1 and 1500 tokens, scores and types"),
        ("token_type", [1] * len(tokens), "no token for what is not known"),
        ("token_type", [kind if kind != 3 else 1 for kind in kinds], "is no special one"),
        ("tokens", tokens[:-1] + tokens[-2:-1], "SentencePiece refuses its tokenizer: .*already defined"),
        ("eos_token_id", 1500, "of 1500 tokens it names"),
    ):
        with pytest.raises(Failure, match=said):
            tokenizer(whole | {f"tokenizer.ggml.{name}": value}, path)
    with pytest.raises(Failure, match=r"it has no tokenizer\.ggml\.scores"):
        tokenizer({name: value for name, value in whole.items() if not name.endswith("scores")}, path)
