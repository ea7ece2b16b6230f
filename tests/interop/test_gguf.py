"""GGUF files come in as what they were made of; damaged and unknown ones are refused by name."""

import json
import os
import shutil
from pathlib import Path

import gguf as library
import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from sentencepiece import SentencePieceProcessor
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from jaxlm.config.errors import Failure, UsageError
from jaxlm.interop import exchange, gguf
from jaxlm.interop.imported import bring
from jaxlm.layers.names import flatten
from jaxlm.parallel.layout import single_device
from jaxlm.tokenizers.gguf import tokenizer as read
from jaxlm.tokenizers.sentencepiece_training import train
from jaxlm.train.load import load_run
from tests.interop import ggufs
from tests.tiny import tokens
from tests.tokenizers.trained import TEXTS

VOCAB, EMBED, HEADS, KV_HEADS, HEAD, WIDTH, LAYERS = 300, 64, 4, 2, 16, 96, 2
TOLD = {
    "model_type": "llama",
    "vocab_size": VOCAB,
    "hidden_size": EMBED,
    "intermediate_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "head_dim": HEAD,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 128,
    "rope_parameters": {"rope_theta": 5e4, "rope_type": "default"},
    "tie_word_embeddings": True,
    "hidden_act": "silu",
}


@pytest.fixture(scope="module")
def tokenizer():
    made = Tokenizer(models.BPE())
    digits = pre_tokenizers.Digits(individual_digits=True)
    made.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    made.decoder = decoders.ByteLevel()
    alphabet, special = pre_tokenizers.ByteLevel.alphabet(), ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(vocab_size=VOCAB, initial_alphabet=alphabet, special_tokens=special)
    made.train_from_iterator(TEXTS, trainer)
    return made


@pytest.fixture(scope="module")
def directory(tmp_path_factory, tokenizer):
    """A model as Hugging Face keeps it, every parameter random."""
    path, draw = tmp_path_factory.mktemp("model"), np.random.default_rng(0)
    shapes = {"model.embed_tokens.weight": (VOCAB, EMBED), "model.norm.weight": (EMBED,)}
    inside = {"input_layernorm": (EMBED,), "post_attention_layernorm": (EMBED,)}
    inside |= {"self_attn.q_proj": (HEADS * HEAD, EMBED), "self_attn.o_proj": (EMBED, HEADS * HEAD)}
    inside |= {f"self_attn.{one}_proj": (KV_HEADS * HEAD, EMBED) for one in "kv"}
    inside |= {"mlp.gate_proj": (WIDTH, EMBED), "mlp.up_proj": (WIDTH, EMBED), "mlp.down_proj": (EMBED, WIDTH)}
    shapes |= {f"model.layers.{n}.{part}.weight": shape for n in range(LAYERS) for part, shape in inside.items()}
    made = {name: draw.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}
    save_file(made, path / "model.safetensors")
    (path / "config.json").write_text(json.dumps(TOLD))
    tokenizer.save(str(path / "tokenizer.json"))
    settings = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
    (path / "tokenizer_config.json").write_text(json.dumps(settings))
    return path


def load(path):
    config, model = exchange.load(path, single_device())
    return config, flatten(model)


def test_the_same_model(directory, tokenizer, tmp_path):
    wanted_config, wanted = load(directory)
    config, found = load(ggufs.write(tmp_path / "a.gguf", directory, tokenizer))
    assert config == wanted_config
    jax.tree.map(np.testing.assert_array_equal, found, wanted)
    _, wrong = load(ggufs.write(tmp_path / "b.gguf", directory, tokenizer, paired=False))
    assert {name for name in wanted if not np.array_equal(wrong[name], wanted[name])} == {
        name for name in wanted if name.endswith(("query.kernel", "key.kernel"))
    }


@pytest.mark.parametrize(
    ("form", "share"), [("F16", 1e-3), ("BF16", 8e-3), ("Q8_0", 2e-2), ("Q4_0", 0.2), ("Q4_1", 0.2)]
)
def test_formats(directory, tokenizer, tmp_path, form, share):
    formats = {"ffn_up.weight": form, "token_embd.weight": form, "attn_q.weight": form}
    (_, wanted), (_, found) = (
        load(directory),
        load(ggufs.write(tmp_path / "a.gguf", directory, tokenizer, formats=formats)),
    )
    for name in wanted:
        apart = np.abs(np.asarray(found[name]) - wanted[name]).max()
        rounded = name.endswith(("up.kernel", "embedding.kernel", "query.kernel"))
        assert (0 < apart < share * np.abs(wanted[name]).max()) if rounded else apart == 0


@pytest.mark.parametrize("form", ["Q4_K", "Q6_K"])
def test_formats_that_the_library_only_reads(form):
    kind = library.GGMLQuantizationType[form]
    _, size = library.GGML_QUANT_SIZES[kind]
    stored = np.random.default_rng(0).integers(0, 60, (4, 2 * size), dtype=np.uint8)
    file = object.__new__(gguf.File)
    file._stored = {"x": gguf.Stored(stored, kind, (4, 512), "")}
    np.testing.assert_array_equal(file.read("x"), library.quants.dequantize(stored, kind))


def test_a_run_of_either(directory, tokenizer, tmp_path):
    file = ggufs.write(tmp_path / "Tiny Model.gguf", directory, tokenizer)
    runs = [bring(source, str(tmp_path / name)) for source, name in ((file, "one"), (directory, "two"))]
    loaded = [load_run(run) for run in runs]
    for model, found, _ in loaded:
        text = "<|endoftext|>"  # ends nothing here, and is a special token all the same
        assert 0 not in found.encode(text)
        assert found.decode([0, 40]) == found.decode([40])
        text = "def f(x): 12345 日本 👍🏽 <|im_end|>"
        wanted = tokenizer.encode_batch([text.removesuffix("<|im_end|>")])[0].ids
        assert found.encode(text).tolist()[: len(wanted)] == wanted
        assert (found.bos, found.eos, found.decode(found.encode(text))) == (1, 2, text)
        jax.tree.map(np.testing.assert_array_equal, flatten(model), load(directory)[1])
    assert "im_start" in loaded[0][1].template
    assert bring(file, runs[0]) == runs[0]  # it is there: no error
    with pytest.raises(UsageError, match="is a run of another experiment"):
        bring(directory, runs[0])


def test_a_run_with_a_sentencepiece_model(directory, tmp_path):
    """Of a directory that has nothing else, which is kept as it is, and out of a GGUF, where it goes as far as a
    tokenizer.json; either run is read again.
    """
    model = train(["in the end the tin hat is in the net; then this nest is the thin hen's"] * 20, "bpe", 290).model
    plain = tmp_path / "plain"
    shutil.copytree(directory, plain, ignore=shutil.ignore_patterns("tokenizer*"))
    (plain / "tokenizer.model").write_bytes(model)
    wanted = SentencePieceProcessor(model_proto=model)
    for source in (plain, ggufs.write(tmp_path / "a.gguf", directory, model)):
        _, found, _ = load_run(bring(source, str(tmp_path / "runs" / source.stem)))
        assert [found.encode(text).tolist() for text in TEXTS[:20]] == wanted.encode(list(TEXTS[:20]))
        assert (found.bos, found.eos) == (wanted.bos_id(), wanted.eos_id())
    assert found.template == "{{ messages[0].content }}"


@pytest.mark.parametrize("cut", [0, 3, 20, 200, 0.3, 0.9, 0.999])
def test_truncated(directory, tokenizer, tmp_path, cut):
    path = ggufs.write(tmp_path / "a.gguf", directory, tokenizer)
    whole = path.read_bytes()
    path.write_bytes(whole[: cut if cut >= 1 or not cut else int(cut * len(whole))])
    with pytest.raises(Failure, match=r"a\.gguf is damaged or no GGUF file"):
        exchange.opened(path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"architecture": "mamba"}, "no architecture 'mamba' is known here; there is llama"),
        ({"llama.rope.scaling.type": "yarn"}, r"settings that are not known here: rope.scaling.type"),
        ({"llama.block_count": None}, "is damaged: it has no llama.block_count"),
        ({"llama.rope.dimension_count": 8}, "llama.rope.dimension_count is 8, expected 16"),
        ({"llama.block_count": 3}, r"model\.layers\.2"),
        ({"llama.embedding_length": 32}, "does not fit"),
    ],
)
def test_what_does_not_fit(directory, tokenizer, tmp_path, changes, said):
    path = ggufs.write(tmp_path / "a.gguf", directory, tokenizer, **changes)
    with pytest.raises(Failure, match=said):
        exchange.load(path, single_device())


def test_words_of_a_tokenizer_that_is_not_known(directory, tokenizer, tmp_path):
    file = gguf.File(ggufs.write(tmp_path / "a.gguf", directory, tokenizer))
    for name, value, said in (
        ("model", "bert", "no tokenizer 'bert' is known here"),
        (
            "pre",
            "tekken",
            "no tokenizer.ggml.pre 'tekken' is known here; there are gpt-2, smollm, llama-bpe, qwen2",
        ),
        ("merges", ["a b c"], "a merge is not of two"),
        ("token_type", [1], "300 tokens have 1 types"),
        ("eos_token_id", 300, "of 300 tokens it names"),
        ("tokens", ["a"] * VOCAB, "stand in it twice|have one id|damaged"),
    ):
        with pytest.raises(Failure, match=said):
            read(file.fields | {f"tokenizer.ggml.{name}": value}, file.path)


def test_more_tokens_than_the_embedding_has(directory, tokenizer, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    tensors = load_file(directory / "model.safetensors")
    tensors["model.embed_tokens.weight"] = tensors["model.embed_tokens.weight"][:200]
    save_file(tensors, small / "model.safetensors")
    (small / "config.json").write_text(json.dumps(TOLD | {"vocab_size": 200}))
    with pytest.raises(UsageError, match=r"has no tokenizer: expected one of tokenizer\.json"):
        bring(small, str(tmp_path / "run"))
    tokenizer.save(str(small / "tokenizer.json"))
    (small / "tokenizer_config.json").write_text((directory / "tokenizer_config.json").read_text())
    with pytest.raises(UsageError, match="the tokenizer has 300 tokens, the embedding 200 rows"):
        bring(small, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.nightly
def test_a_model_that_speaks(tmp_path):
    """Perplexity of 512 tokens as transformers has it (5.23 with its own reader of the file); the answer of greedy
    decoding.
    """
    path = ggufs.published()
    data = os.environ.get("JAXLM_DATA") or pytest.skip("JAXLM_DATA is not set")
    model, found, call = load_run(bring(path, str(tmp_path / "run")))
    ids = found.encode(Path(data, "text/wikitext2_valid.txt").read_text()[:6000])[:512]

    def logits(ids):
        row = tokens(ids[None])
        return np.asarray(jax.jit(lambda m: m.logits(m(row, call).hidden, call))(model))[0]

    chosen = np.take_along_axis(np.asarray(jax.nn.log_softmax(logits(ids)))[:-1], ids[1:, None], 1)
    assert np.exp(-chosen.mean()) == pytest.approx(15.6595, abs=1e-3)
    answer = logits(found.encode("The capital of France is"))[-1].argmax()
    assert found.decode([int(answer)]) == " Paris"
