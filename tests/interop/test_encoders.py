"""Files of encoders as they are found: older names, tensors of tasks that are not asked for, other tasks' names."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from jaxlm import config
from jaxlm.config.errors import Failure, UsageError
from jaxlm.families import known
from jaxlm.interop import exchange
from jaxlm.layers.positions import log_bucket_of
from jaxlm.parallel.layout import single_device
from tests.interop.cases import BERT, DEBERTA

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")


@pytest.fixture
def changed(published, tmp_path):
    """`changed(case, settings, rename, more)`: a copy of a small model with other settings and names of tensors."""
    from safetensors.numpy import load_file, save_file

    def make(case, settings, rename=lambda name: name, **more):
        directory, _ = published(case)
        told = json.loads((directory / "config.json").read_text())
        tensors = {rename(name): value for name, value in load_file(directory / "model.safetensors").items()}
        (tmp_path / "config.json").write_text(json.dumps(told | settings))
        save_file(tensors | more, tmp_path / "model.safetensors")
        return tmp_path

    return make


def loaded(directory):
    return exchange.load(directory, single_device())


def older(name):
    """As in the files of 2018."""
    return name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")


UNUSED = {
    "cls.predictions.decoder.weight": np.zeros((71, 48), np.float32),
    "bert.embeddings.position_ids": np.zeros((1, 128), np.int64),
}


@pytest.mark.parametrize(
    ("case", "settings", "rename", "more"),
    [
        ("bert", {"architectures": None}, older, UNUSED),
        ("bert, pretraining", {}, older, UNUSED),
        (
            "bert, answers",
            {"architectures": ["BertForTokenClassification"]},
            lambda n: n.replace("qa_outputs", "classifier"),
            {},
        ),
        (
            "bert, hidden states",
            {},
            lambda n: n.removeprefix("bert."),
            {"pooler.dense.bias": np.zeros(48, np.float32)},
        ),
        ("bert, hidden states", {}, lambda n: f"bert.{n.removeprefix('bert.')}", {}),
    ],
)
def test_names_that_are_found(changed, published, case, settings, rename, more):
    wanted = loaded(published(case)[0])
    found = loaded(changed(case, settings, rename, **more))
    assert found[0] == wanted[0]
    jax.tree.map(np.testing.assert_array_equal, found[1], wanted[1])


def test_what_a_task_does_not_use_is_left_out(changed, published):
    """A file of pretraining whose settings name the masked language model, as those of 2018 do."""
    told, model = loaded(changed("bert, pretraining", {"architectures": ["BertForMaskedLM"]}))
    whole, both = loaded(published("bert, pretraining")[0])
    assert told == dataclasses.replace(whole, classifier=config.NoClassifier())
    jax.tree.map(np.testing.assert_array_equal, model, both.replace(classifier=None, config=told))


def test_what_is_missing_or_unknown_is_named(changed):
    directory = changed("bert", {"architectures": ["BertForSequenceClassification"]})
    with pytest.raises(Failure, match=r"missing bert\.pooler\.dense\.weight(.|\n)*missing classifier\.weight"):
        loaded(directory)
    directory = changed("bert", {}, **{"bert.encoder.layer.3.output.dense.bias": np.zeros(48, np.float32)})
    with pytest.raises(Failure, match=r"unexpected bert\.encoder\.layer\.3\.output\.dense\.bias"):
        loaded(directory)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"conv_kernel_size": 3}, "a convolution beside the first layer is not known"),
        ({"share_att_key": False}, "share_att_key is False, and only True"),
        ({"pos_att_type": ["c2p"]}, r"pos_att_type is \['c2p'\], and only"),
        ({"position_biased_input": True}, "position_biased_input is True, and only False"),
        ({"norm_rel_ebd": "batch"}, "norm_rel_ebd is 'batch', and only 'none' or 'layer_norm'"),
    ],
)
def test_attention_that_is_refused(changes, message):
    with pytest.raises(Failure, match=message):
        known.family("deberta-v2").read(DEBERTA | changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architectures": ["BertLMHeadModel"]}, "names 'BertLMHeadModel', and only BertForMaskedLM, BertForPre"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type is 'relative_key', and only 'absol"),
        ({"is_decoder": True}, "is_decoder is True, and only False is known"),
        ({"embedding_size": 16}, "settings that are not known here: embedding_size"),
    ],
)
def test_settings_that_are_refused(changes, message):
    with pytest.raises(Failure, match=message):
        known.family("bert").read(BERT | changes)


def test_positions_after_padding_keep_their_number(published, tmp_path):
    """RoBERTa's begin after the number of the padding token: another number would move them all."""
    told, model = loaded(published("roberta")[0])
    with pytest.raises(UsageError, match="pad_token_id is 1 in this tokenizer and 0 in this model"):
        exchange.save(told, model, tmp_path / "x", length=128, tokens={"pad_token_id": 1})
    exchange.save(told, model, tmp_path / "x", length=128, tokens={"pad_token_id": 0})


def test_an_encoder_is_no_decoder():
    model = known.family("bert").read(BERT)
    with pytest.raises(UsageError, match="'llama' has no encoders"):
        known.published(model, 64, "llama")
    with pytest.raises(UsageError, match="'bert' has no decoders"):
        known.published(config.Decoder(), 64, "bert")
    with pytest.raises(UsageError, match=r"no family .*\n.*no BERT"):
        known.published(dataclasses.replace(model, embedding=config.Unchanged()), 64)
    mean = config.Classifier(of="mean")
    with pytest.raises(UsageError, match=r"no family .*\n.*no BERT"):
        known.published(dataclasses.replace(model, head=config.NoHead(), classifier=mean), 64)
    with pytest.raises(UsageError, match="rows of 129 tokens: this model has 128 positions"):
        known.published(model, 129)


@pytest.mark.parametrize(("buckets", "distance"), [(256, 512), (16, 128), (12, 40)])
def test_buckets_are_those_of_the_released_code(buckets, distance):
    from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

    apart = np.arange(-600, 601)
    theirs = make_log_bucket_position(torch.tensor(apart), buckets, distance).long()
    wanted = torch.clamp(theirs + buckets, 0, 2 * buckets - 1).numpy()
    np.testing.assert_array_equal(log_bucket_of(apart, config.Disentangled(buckets, distance)), wanted)
