"""Encoder-decoders as they are found and used: texts that they write, files, what is refused."""

import copy
import dataclasses
import json

import jax
import numpy as np
import pytest

from jaxlm import config
from jaxlm.config.errors import Failure, UsageError
from jaxlm.config.sampling import Options
from jaxlm.families import bart, known, t5
from jaxlm.interop import exchange
from jaxlm.interop.export import export
from jaxlm.interop.imported import bring
from jaxlm.parallel.layout import single_device
from jaxlm.sampling.text import sample_with_log_probabilities
from jaxlm.tokenizers.bytes import ByteTokenizer
from tests.interop import pairs
from tests.interop.cases import BART, T5
from tests.interop.test_families import APART
from tests.tiny import CALL, random_model
from tests.tokenizers import trained

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

TEXTS = ("the quick brown fox", "a lazy dog that sleeps while it is told that it may not sleep, and dreams", "x")
TOKENS = 40
GENERATION = {"num_beams": 1, "do_sample": False, "max_new_tokens": TOKENS, "forced_eos_token_id": None}


class Letters(ByteTokenizer):
    """Each character is one of 60 tokens; the special ones are those of the family."""

    vocab = 71

    def __init__(self, pad, bos, eos):
        super().__init__()
        for name, token in {"pad": pad, "bos": bos, "eos": eos}.items():
            object.__setattr__(self, name, token)

    def encode(self, text):
        return np.array([5 + ord(letter) % 60 for letter in text], np.int32)

    def bytes_of(self, ids):
        return bytes(65 + int(token) % 26 for token in ids)


SPECIAL = {"t5": Letters(0, 1, 1), "t5 1.1": Letters(0, 1, 1), "bart": Letters(1, 0, 2)}


def restless(reference, directory):
    """A copy that does not write one token over and over, as a tied head does: its last norm turns the stream."""
    reference = copy.deepcopy(reference)
    decoder = reference.get_decoder()
    last = decoder.final_layer_norm if hasattr(decoder, "block") else decoder.layers[-1].final_layer_norm
    with torch.no_grad():
        last.weight.neg_()
    reference.save_pretrained(directory)
    return reference


def written(reference, tokenizer, before, start) -> list[list[int]]:
    """What transformers writes greedily of all texts at once, up to the end token."""
    rows = [[*before, *tokenizer.encode(text), tokenizer.eos] for text in TEXTS]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [tokenizer.pad] * (longest - len(row)) for row in rows])
    seen = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    more = {"pad_token_id": tokenizer.pad, "eos_token_id": tokenizer.eos, "decoder_start_token_id": start}
    reference.generation_config.forced_eos_token_id = None
    drawn = reference.generate(input_ids=ids, attention_mask=seen, **GENERATION | more)[:, 1:].tolist()
    return [row[: row.index(tokenizer.eos) + 1] if tokenizer.eos in row else row for row in drawn]


def ours(model, tokenizer, texts=TEXTS) -> list[list[int]]:
    options = Options(tokens=TOKENS, temperature=0.0)
    return [one.ids for one in sample_with_log_probabilities(model, tokenizer, texts, options, CALL)]


@pytest.mark.parametrize(
    ("case", "before", "start"),
    [("t5", [], 0), pytest.param("t5 1.1", [], 0, marks=pytest.mark.nightly), ("bart", [0], 2)],
)
def test_greedy_texts_are_those_of_transformers(published, tmp_path, case, before, start):
    """Sources of three lengths, of which two are padded; targets begin with what the family begins them with."""
    reference = restless(published(case)[1], tmp_path)
    tokenizer = SPECIAL[case]
    told, model = exchange.load(tmp_path, single_device())
    wanted = written(reference, tokenizer, before, start)
    assert len({tuple(row) for row in wanted}) == len(TEXTS)
    assert max(len(set(row)) for row in wanted) > 2
    assert ours(model, tokenizer) == wanted
    other = {"text": "bos_text", "bos_text": "text"}[told.source]
    for change in ({"start": 7}, {"source": other}):
        assert ours(model.replace(config=dataclasses.replace(told, **change)), tokenizer) != wanted, change


def test_what_is_exported_begins_with_bos(tmp_path, monkeypatch):
    """Where the model does not say, as jaxlm trains it; what it says stays."""
    monkeypatch.chdir(tmp_path)
    files = {one.name: one.read_bytes() for one in trained.write("byte_bpe", tmp_path / "files").iterdir()}
    for start in (None, 0):
        told = dataclasses.replace(t5.read(T5 | {"vocab_size": 460}), start=start)
        exchange.save(told, random_model(told), tmp_path / f"x{start}", length=64, files=files)
        export(bring(tmp_path / f"x{start}"), tmp_path / f"y{start}")
        settings = json.loads((tmp_path / f"y{start}/config.json").read_text())
        assert settings["decoder_start_token_id"] == (settings["bos_token_id"] if start is None else start)
        assert settings["bos_token_id"] > 0


def test_without_a_start_targets_begin_with_bos(published):
    told, model = exchange.load(published("t5")[0], single_device())
    by_bos = model.replace(config=dataclasses.replace(told, start=None))
    assert ours(by_bos, Letters(0, 2, 1), TEXTS[:1]) == ours(
        model.replace(config=dataclasses.replace(told, start=2)), Letters(0, 3, 1), TEXTS[:1]
    )


@pytest.mark.parametrize("case", ["t5", pytest.param("bart", marks=pytest.mark.nightly)])
def test_padding_of_sources_is_not_seen(published, case):
    told, model = exchange.load(published(case)[0], single_device())
    far = np.abs(pairs.logits(model, told.vocab, blind=True) - pairs.logits(model, told.vocab))
    assert far[0].max() == 0.0
    assert far[1].max() > APART


@pytest.fixture
def changed(published, tmp_path):
    """`changed(case, settings, tensors)`: a copy of a small model with other settings and more tensors."""
    from safetensors.numpy import load_file, save_file

    def make(case, settings, rename=lambda name: name, **more):
        directory, _ = published(case)
        told = json.loads((directory / "config.json").read_text())
        tensors = {rename(name): value for name, value in load_file(directory / "model.safetensors").items()}
        (tmp_path / "config.json").write_text(json.dumps(told | settings))
        save_file(tensors | more, tmp_path / "model.safetensors")
        return tmp_path

    return make


ZEROS = np.zeros((1, 71), np.float32)
COPIES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight")
OLD_T5 = {
    "n_positions": 512,
    "output_past": True,
    "architectures": ["T5WithLMHeadModel"],
    "task_specific_params": {},
}
OLD_BART = {"add_bias_logits": False, "add_final_layer_norm": False, "classif_dropout": 0.1, "num_beams": 4}
OLD_BART |= {
    "normalize_before": False,
    "normalize_embedding": True,
    "architectures": ["BartModel"],
    "max_length": 9,
}


@pytest.mark.parametrize(
    ("case", "settings", "rename", "more"),
    [
        ("t5", OLD_T5, str, {name: np.ones((71, 24), np.float32) for name in COPIES}),
        ("bart", OLD_BART, lambda name: name.removeprefix("model."), {"final_logits_bias": ZEROS}),
        ("bart", {}, str, {"final_logits_bias": ZEROS, "model.encoder.embed_tokens.weight": ZEROS}),
    ],
)
def test_files_that_are_found(changed, published, case, settings, rename, more):
    wanted = exchange.load(published(case)[0], single_device())
    found = exchange.load(changed(case, settings, rename, **more), single_device())
    assert found[0] == wanted[0]
    jax.tree.map(np.testing.assert_array_equal, found[1], wanted[1])


def test_a_bias_of_scores_is_refused(changed):
    directory = changed("bart", {}, final_logits_bias=ZEROS + 0.1)
    with pytest.raises(Failure, match="final_logits_bias is not zero, and nothing else is known here"):
        exchange.load(directory, single_device())


def test_a_later_file_of_a_head_of_its_own(published):
    """It calls the head tied: that hidden states are not scaled is what tells."""
    told = json.loads((published("t5 1.1")[0] / "config.json").read_text())
    assert told["tie_word_embeddings"]
    assert not told["scale_decoder_outputs"]
    assert t5.read(told).head == config.Untied()
    assert t5.read(T5).head == config.Tied(scale=24**-0.5)


@pytest.mark.parametrize(
    ("model_type", "changes", "message"),
    [
        ("t5", {"feed_forward_proj": "gated-tanh"}, "feed_forward_proj is 'gated-tanh', and only"),
        (
            "t5",
            {"architectures": ["T5EncoderModel"]},
            "names 'T5EncoderModel', and only T5ForConditionalGeneration",
        ),
        ("t5", {"d_head": 3}, "settings that are not known here: d_head"),
        ("bart", {"scale_embedding": True}, "scale_embedding is True, and only False is known"),
        ("bart", {"decoder_ffn_dim": 41}, "decoder_ffn_dim is 41, and only 40 is known"),
        ("bart", {"architectures": ["BartForSequenceClassification"]}, "names 'BartForSequenceClassification'"),
    ],
)
def test_settings_that_are_refused(model_type, changes, message):
    small = {"t5": T5, "bart": BART}[model_type]
    with pytest.raises(Failure, match=message):
        known.family(model_type).read(small | changes)


def test_what_no_family_has():
    plain = config.EncoderDecoder()
    with pytest.raises(UsageError, match=r"no family .*\n.*no T5(.|\n)*no mT5(.|\n)*no BART"):
        known.published(plain, 64)
    with pytest.raises(UsageError, match="'bert' has no encoderdecoders"):
        known.published(plain, 64, "bert")
    small = bart.read(BART)
    with pytest.raises(UsageError, match="rows of 161 tokens: this model has 160 positions"):
        known.published(small, 161, "bart")
    with pytest.raises(UsageError, match="no BART"):
        known.published(dataclasses.replace(small, tables="shared"), 64, "bart")
    assert known.published(dataclasses.replace(small, start=None), 64)[1]["decoder_start_token_id"] is None


def test_a_source_longer_than_its_table_is_refused(published):
    _, model = exchange.load(published("bart")[0], single_device())
    with pytest.raises(UsageError, match="need 163 positions, and the model learned 160"):
        ours(model, SPECIAL["bart"], ["x" * 161])


def test_a_table_for_each_half_needs_tables():
    from jaxlm.models import build

    kind = config.EncoderDecoder(tables="each")
    with pytest.raises(UsageError, match=r"only learned positions have tables"):
        jax.eval_shape(lambda: build(kind, jax.random.key(0)))
