"""Closed forms against published sizes and against counting by hand."""

import dataclasses

import pytest

from jaxlm.config import (
    Attention,
    Block,
    Classification,
    Classifier,
    Contrastive,
    Decoder,
    EachHead,
    Encoder,
    EncoderDecoder,
    Gated,
    LayerNorm,
    Learned,
    MaskedLm,
    Mesh,
    Moe,
    NextSentence,
    NoPosition,
    Normed,
    Pattern,
    Plain,
    PostNorm,
    Rwkv4,
    Rwkv7,
    Untied,
)
from jaxlm.config.errors import UsageError
from jaxlm.config.flops import active_parameters, blocks, flops_of, flops_per_token, parameters
from jaxlm.config.memory import bytes_per_device
from tests.base import experiment


def heads(count, head=64, **k):
    return Attention(heads=count, kv_heads=k.pop("kv_heads", count), head=head, **k)


GPT2 = Decoder(
    vocab=50257,
    embed=768,
    layers=12,
    block=Block(heads(12, bias="all"), Plain(3072, bias="all")),
    position=Learned(1024),
    norm=LayerNorm(),
)
LLAMA2 = Decoder(32000, 4096, 32, Block(heads(32, 128), Gated(11008)), head=Untied())
MISTRAL = Decoder(32000, 4096, 32, Block(heads(32, 128, kv_heads=8), Gated(14336)), head=Untied())
T5 = EncoderDecoder(32128, 512, block=Block(heads(8), Plain(2048, "relu")), position=NoPosition())
BERT = Encoder(
    30522,
    768,
    12,
    Block(heads(12, bias="all"), Plain(3072, "gelu", "all"), PostNorm()),
    Learned(512),
    embedding=Normed(),
    types=2,
)
RWKV = Rwkv4(50277, 768, 12, 3072)
MIXTRAL = Decoder(32000, 4096, 32, Block(heads(32, 128, kv_heads=8), Moe(8, 2, 14336)), head=Untied())
QWEN3 = Decoder(
    151936, 2048, 48, Block(heads(32, 128, kv_heads=4, qk_norm=EachHead()), Moe(128, 8, 768)), head=Untied()
)
DEEPSEEK = Decoder(
    102400,
    2048,
    28,
    Pattern(
        prefix=(Block(heads(16, 128), Gated(10944)),),
        period=(Block(heads(16, 128), Moe(64, 6, 1408, weights="scores", shared=2 * 1408)),),
    ),
    head=Untied(),
)


@pytest.mark.parametrize(
    ("model", "published"),
    [
        (GPT2, 124_439_808),
        (LLAMA2, 6_738_415_616),
        (dataclasses.replace(LLAMA2, layers=29, ahead=3), 6_738_415_616),  # as many layers, three of them heads
        (MISTRAL, 7_241_732_096),
        (T5, 60_506_624 - 2 * 32 * 8),  # without its two tables of relative biases
        (BERT, 109_482_240 - 768 * 769),  # without pooler
        (RWKV, 169_342_464),
        (MIXTRAL, 46_702_792_704),
        (QWEN3, 30_532_122_624),
        (DEEPSEEK, 16_375_728_128),
    ],
)
def test_parameters_of_published_models(model, published):
    assert parameters(model)["total"] == published


def test_a_token_meets_the_experts_it_chooses():
    """Mixtral 8x7B: 12.9 billion of 46.7 (arXiv:2401.04088); Qwen3-30B-A3B: 3.3; DeepSeekMoE 16B: 2.8."""
    assert active_parameters(MIXTRAL) == 12_879_925_248
    assert 3.3e9 < active_parameters(QWEN3) < 3.4e9
    assert round(active_parameters(DEEPSEEK) / 1e9, 1) == 2.8
    assert active_parameters(LLAMA2) == parameters(LLAMA2)["total"]
    attention, mlp = 2 * 4096 * (4096 + 1024), 2 * 3 * 4096 * 14336 + 4096 * 8
    assert flops_per_token(MIXTRAL, 4096)["projections"] == 2 * 32 * (attention + mlp)


def test_flops_of_projections_are_twice_their_parameters():
    count = parameters(LLAMA2)
    flops = flops_per_token(LLAMA2, 4096)
    assert flops["projections"] == 2 * (count["attention"] + count["mlp"])
    assert flops["attention"] == 32 * 2 * 2 * 4096 * 4096 / 2
    assert flops["head"] == 2 * 32000 * 4096
    assert (
        flops["training"] == 3 * flops["forward"] == 3 * sum(flops[k] for k in ("projections", "attention", "head"))
    )


def test_flops_of_recurrent_models():
    """Matrices twice, and by hand what RWKV-7 does to a state of 64 x 64 in each of 12 heads."""
    model = Rwkv7(65536, 768, 12, width=3072)
    low = 2 * 768 * (64 + 64 + 128 + 32)
    matrices = 12 * (4 * 768**2 + 2 * 768 * 3072 + low) - 2 * 768 * 32
    state = 64 * 64
    each = {
        "decay": state,
        "removal read": 2 * state,
        "taken out": 2 * state,
        "added": 2 * state,
        "read": 2 * state,
    }
    flops = flops_per_token(model, 4096)
    assert flops["projections"] == 2 * matrices
    assert flops["attention"] == 12 * 12 * sum(each.values())
    assert flops_per_token(RWKV, 4096)["attention"] == 0


def test_a_window_counts_the_keys_it_leaves():
    def attention(window, length=512):
        model = Decoder(layers=1, block=Block(heads(1, 64, window=window)))
        return flops_per_token(model, length)["attention"]

    seen = sum(min(i, 100) for i in range(1, 513)) / 512  # the closed form takes half a key less on the diagonal
    assert attention(100) == pytest.approx(2 * 2 * seen * 64, rel=0.01)
    assert attention(512) == attention(None) == attention(4096)


def test_patterns_fill_the_stack():
    a, b, z = Block(heads(1)), Block(heads(2)), Block(heads(3))
    assert blocks(Pattern((a, b), (z,), (z,)), 6) == [z, a, b, a, b, z]
    with pytest.raises(UsageError, match=r"model.layers is 5"):
        blocks(Pattern((a, b), (z,), (z,)), 5)


def test_bytes_per_device():
    base = experiment()
    count = parameters(base.model)["total"]
    one = bytes_per_device(base, 1)
    assert (one["parameters"], one["gradients"], one["optimizer"]) == (4 * count, 4 * count, 8 * count)
    where = dataclasses.replace(base.where, mesh=Mesh(fsdp=4, tensor=2))
    eight = bytes_per_device(dataclasses.replace(base, where=where), 8)
    assert eight["parameters"] == 4 * count // 8
    assert eight["activations"] == pytest.approx(one["activations"] / 8)
    with pytest.raises(UsageError, match="is not 6 devices"):
        bytes_per_device(dataclasses.replace(base, where=where), 6)


def test_what_an_objective_asks_of_a_model():
    """No scores of tokens for labels and vectors, one pass more for another dropout, and logits in chunks."""
    encoder = Encoder(vocab=32_000, dropout=0.1, classifier=Classifier())
    tree = dataclasses.replace(experiment(), model=encoder, objective=MaskedLm())
    masked, labels, second, dropout = (
        flops_of(dataclasses.replace(tree, objective=one))
        for one in (MaskedLm(), Classification(), Contrastive(), Contrastive("dropout"))
    )
    assert masked["head"] == 2 * 32_000 * 512
    assert labels["head"] == 0
    assert labels["forward"] == masked["forward"] - masked["head"]
    assert second == labels
    assert dropout["training"] == 2 * second["training"]
    logits = [
        bytes_per_device(dataclasses.replace(tree, objective=one), 1)["logits"]
        for one in (MaskedLm(), NextSentence(), Classification())
    ]
    assert logits[0] == logits[1] > 0 == logits[2]
