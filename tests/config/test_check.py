"""What the config alone shows to be wrong is refused with its path."""

import pytest

from experiments.quickstart import experiment as quickstart
from jaxlm.config.check import check
from jaxlm.config.errors import UsageError
from jaxlm.config.overrides import apply
from tests.base import experiment


def test_shipped_experiment_passes():
    check(quickstart())
    check(experiment())


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("--train.batch 0", "train.batch is 0: expected at least 1"),
        ("quantization:rounded", "quantization is Rounded: numbers stored in few bits are not trained; add an"),
        ("quantization:aware adapter:lora", "quantization is Aware: the sum of a weight and its Lora would be"),
        ("adapter:lora --adapter.dropout 1.0", "adapter.dropout"),
        ("--cut.layers 0", "cut keeps a part of an initial model, and there is none: name it, --init"),
        ("objective:distillation", "teacher is empty: Distillation learns from a model; name it, --teacher RUN"),
        (
            "objective:distillation objective.policy:policy_gradient objective.response:reverse_kl --teacher RUN "
            "--train.batch 1",
            "train.batch is 1: with objective.labels 0.5 every other row has labels",
        ),
        ("--teacher RUN", "teacher is RUN: Autoregressive asks for none; use objective:distillation"),
        ("--model.dropout 1.5", "model.dropout is 1.5: expected a share"),
        ("--optimizer.schedule.peak -1", "optimizer.schedule.peak is -1.0: expected no negative"),
        ("--where.micro_batches 3", "train.batch is 16: where.micro_batches = 3 does not divide"),
        ("model.position:learned --model.position.length 8", "model.position.length is 8"),
        ("model:encoder --model.vocab 4096", "model is an Encoder: it sees the tokens"),
        ("model:encoder_decoder --model.vocab 4096", "model is an EncoderDecoder: Autoregressive has nothing"),
        (
            "model:encoder_decoder --model.vocab 4096 --model.start 4096 objective:span_corruption",
            "model.start is 4096: the embedding has 4096 tokens",
        ),
        ("--model.vocab 100", "model.vocab is 100: the tokenizer has 4096"),
        ("--where.flags vmem async_gather", "where.flags: no set 'async_gather'; nearest: async_gathers, "),
        (
            "--model.block.attention.kv_heads 3",
            "model.block.attention.kv_heads is 3: it must divide heads = 4",
        ),
        (
            "model.block.mlp:moe --model.block.mlp.top_k 9",
            "model.block.mlp.top_k is 9: it must be at most experts = 8",
        ),
        (
            "model.block.mlp:moe model.block.mlp.dispatch:capacity --model.block.mlp.dispatch.rows 0",
            "model.block.mlp.dispatch.rows is 0: expected at least 1",
        ),
    ],
)
def test_refusals(argv, message):
    with pytest.raises(UsageError) as error:
        check(apply(experiment(), argv.split()))
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_a_mixture_as_it_comes_is_fine():
    """No shared experts is no mistake."""
    check(apply(experiment(), ["model.block.mlp:moe"]))
