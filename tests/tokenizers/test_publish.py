"""What goes out is read by transformers' AutoTokenizer: the same tokens, one BOS, the same special ones."""

import argparse
import inspect
import json

import numpy as np
import pytest
import sentencepiece

from jaxlm.config import Gpt2Files, SentencePieceFile, TokenizerJson, Whitespace
from jaxlm.config.errors import UsageError
from jaxlm.tokenizers import ByteTokenizer, build, given, train
from jaxlm.tokenizers.conversion import from_sentencepiece
from jaxlm.tokenizers.publish import TIES, exported
from tests.tokenizers import lines, trained

transformers = pytest.importorskip("transformers")
SOURCE = [inspect.getsource(argparse), *trained.TEXTS, *lines.SENTENCES]
KINDS = (*trained.KINDS, "gpt2", "whitespace", "bytes", "spm_bpe", "spm_unigram", "prefixed")


@pytest.fixture(scope="module", params=[name for name in lines.TEXTS if name != "real japanese"])
def texts(request):
    return lines.TEXTS[request.param]()


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """`pairs(kind)`: (ours, AutoTokenizer's reading of what we wrote), made once."""
    place, made = tmp_path_factory.mktemp("published"), {}

    def pair(kind):
        if kind not in made:
            ours = make(kind, place / kind)
            made[kind] = ours, read(ours, place / f"{kind}-out")
        return made[kind]

    return pair


def make(kind, path):
    match kind:
        case "bytes":
            return ByteTokenizer()
        case "spm_bpe" | "spm_unigram":
            return train(SOURCE, kind.removeprefix("spm_"), 1000)
        case "prefixed":  # as LLaMA 2 comes: a space before every text
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter("\n".join(SOURCE).split("\n")),
                model_prefix=str(path),
                model_type="bpe",
                vocab_size=1000,
                byte_fallback=True,
                normalization_rule_name="identity",
                remove_extra_whitespaces=False,
                minloglevel=2,
            )
            return given(SentencePieceFile(f"{path}.model"))
        case "whitespace":
            return build(Whitespace(vocab=500), lambda: SOURCE, path)
        case "gpt2":
            files = lines.folder() / "tokenizers"
            return given(Gpt2Files(str(files / "gpt2_encoder.json"), str(files / "gpt2_vocab.bpe")))
    return given(TokenizerJson(str(trained.write(kind, path))))


def read(ours, path, model_type="llama"):
    path.mkdir(parents=True)
    for name, data in exported(ours)[0].items():
        (path / name).write_bytes(data)
    (path / "config.json").write_text(json.dumps({"model_type": model_type}))
    return transformers.AutoTokenizer.from_pretrained(path)


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_are_ours_after_one_bos(pairs, kind, texts):
    ours, theirs = pairs(kind)
    wanted = [[ours.bos, *ids.tolist()] for ids in ours.encode_batch(texts)]
    found = theirs(texts)["input_ids"]
    if kind == "spm_unigram":
        assert exported(ours)[1] == TIES
        different = [(one, two) for one, two in zip(wanted, found, strict=True) if one != two]
        assert len(different) <= 20
        for one, two in different:
            np.testing.assert_allclose(score(ours, one), score(ours, two), rtol=1e-6)
    else:
        assert exported(ours)[1] == ""
        assert found == wanted


def score(tokenizer, ids):
    """The log-probability of a cut."""
    return sum(tokenizer.processor.get_score(token) for token in ids)


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_are_ours(pairs, kind):
    ours, theirs = pairs(kind)
    assert (theirs.eos_token_id, theirs.pad_token_id) == (ours.eos, ours.pad)
    assert theirs.bos_token_id == (None if kind == "unigram" else ours.bos)  # T5 has none: EOS stands there
    assert len(theirs) == ours.vocab
    assert theirs.mask_token_id == getattr(ours, "mask", None)
    text = "the quick brown fox" if kind == "wordpiece" else trained.TEXTS[0]
    ids = ours.encode(text).tolist()
    assert theirs.decode([ours.bos, *ids, ours.eos], skip_special_tokens=True) == ours.decode(ids)
    assert (
        theirs.decode(theirs(text)["input_ids"], skip_special_tokens=False).count(
            theirs.bos_token or theirs.eos_token
        )
        == 1
    )


@pytest.mark.parametrize("model_type", ["llama", "mistral", "qwen2", "phi3", "gpt2", "gpt_bigcode"])
@pytest.mark.parametrize("kind", ["byte_bpe", "spm_bpe", "bytes", "wordpiece"])
def test_whatever_family_the_model_is_of(pairs, kind, model_type, tmp_path):
    """transformers has a tokenizer class for each; ours must not be read as another's, or a remark says so."""
    ours, _ = pairs(kind)
    theirs = read(ours, tmp_path / "out", model_type)
    settings = json.loads((tmp_path / "out/tokenizer_config.json").read_text())
    assert (settings["add_bos_token"], settings["add_eos_token"]) == (True, False)
    remark = exported(ours, model_type)[1]
    assert bool(remark) == (model_type == "qwen2")
    if remark:
        assert type(theirs).__name__ == "Qwen2Tokenizer"
        assert remark.startswith(
            "read it by PreTrainedTokenizerFast, as AutoTokenizer takes any tokenizer of a qwen2"
        )
        theirs = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path / "out")
    for text in [*trained.TEXTS[:4], *lines.emoji()[:50], "  two  spaces\n\n\tand more "]:
        assert theirs(text)["input_ids"] == [ours.bos, *ours.encode(text).tolist()]


def test_a_chat_template_goes_along(tmp_path):
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    ours = given(TokenizerJson(str(trained.write("byte_bpe", tmp_path / "in", chat_template=template))))
    assert ours.template == template
    assert read(ours, tmp_path / "out").chat_template == template
    assert given(TokenizerJson(str(tmp_path / "out"))) == ours  # and comes in again


def test_only_the_one_difference_of_sentencepiece(pairs):
    """U+2581 is text in SentencePiece as we use it, a space in transformers."""
    ours, theirs = pairs("spm_bpe")
    assert ours.decode(ours.encode("▁")) == "▁"
    assert theirs("a▁b", add_special_tokens=False) == theirs("a b", add_special_tokens=False)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (
            {"normalization_rule_name": "nmt_nfkc"},
            "it rewrites characters (nmt_nfkc)",
        ),
        ({"remove_extra_whitespaces": True}, "it takes extra white space away"),
        ({"user_defined_symbols": ["<sep>"]}, "it has user-defined pieces"),
        ({"model_type": "char"}, "it is neither BPE nor unigram"),
    ],
)
def test_what_a_tokenizer_json_cannot_hold_is_named(settings, reason, tmp_path):
    usual = {"model_type": "bpe", "vocab_size": 150, "hard_vocab_limit": False, "minloglevel": 2}
    usual |= {"normalization_rule_name": "identity", "remove_extra_whitespaces": False}
    texts = iter([text for text in trained.TEXTS[:2] * 4 for text in text.split("\n") if text])
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=texts, model_prefix=str(tmp_path / "m"), **usual | settings
    )
    ours = given(SentencePieceFile(str(tmp_path / "m.model")))
    files, remark = exported(ours)
    assert list(files) == ["tokenizer.model"]
    assert remark == f"a tokenizer.json cannot hold this SentencePiece model: {reason}"
    with pytest.raises(UsageError):
        from_sentencepiece(ours)
