"""StarCoder (Li et al. 2023, arXiv:2305.06161): GPT-2 with one key and value head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxlm.config.block import Attention, Block, LayerNorm, Plain
from jaxlm.config.head import Tied
from jaxlm.config.model import Decoder
from jaxlm.config.position import Learned
from jaxlm.families import gpt2
from jaxlm.families.settings import Settings, agreed
from jaxlm.families.table import Entry, Part, Table, entry

MODEL_TYPES = ("gpt_bigcode",)
OTHER = "this model is no StarCoder: a GPT-2 with one key and value head"


def starcoder_15b() -> Decoder:
    """StarCoder and StarCoderBase, in rows of 8192 tokens: 15,517,456,384 parameters."""
    return Decoder(
        vocab=49_152,
        embed=6144,
        layers=40,
        block=Block(Attention(48, 1, 128, bias="all"), Plain(24_576, "gelu_tanh", bias="all")),
        position=Learned(8192),
        norm=LayerNorm(),
        head=Tied(),
    )


def read(settings: Mapping[str, Any]) -> Decoder:
    """The model of a config.json. Raises Failure for settings that are missing or not known."""
    told = Settings(settings)
    told.expect("multi_query", True)
    told.expect("num_key_value_heads", 1)
    model = gpt2.decoder(told, told.take("n_head"), kv_heads=1)
    told.finish(
        "attention_softmax_in_fp32", "inference_runner", "max_batch_size", "max_sequence_length", "pad_key_length",
        "pre_allocate_kv_cache", "scale_attention_softmax_in_fp32", "validate_runner_input",
    )  # fmt: skip
    return model


def write(model: Decoder, length: int) -> dict[str, Any]:
    """The config.json of a model that `read` would give. Raises UsageError for any other, and for longer rows."""
    settings = gpt2.common(model, length, OTHER)
    settings |= {"model_type": "gpt_bigcode", "architectures": ["GPTBigCodeForCausalLM"], "multi_query": True}
    return agreed(read, settings | {"activation_function": "gelu_pytorch_tanh"}, model, OTHER)


HERE, THERE = gpt2.HERE, gpt2.THERE
LINEAR = {
    f"{THERE}attn.c_proj.weight": entry(
        f"{THERE}attn.c_proj.weight", f"{HERE}attention.out.kernel", "e (h d)", "h d e"
    ),
    f"{THERE}mlp.c_fc.weight": entry(f"{THERE}mlp.c_fc.weight", f"{HERE}mlp.up.kernel", "m e", "e m"),
    f"{THERE}mlp.c_proj.weight": entry(f"{THERE}mlp.c_proj.weight", f"{HERE}mlp.down.kernel", "e m", "m e"),
    f"{THERE}attn.c_attn.weight": Entry(
        f"{THERE}attn.c_attn.weight",
        "(+ d) e",
        tuple(Part(f"{HERE}attention.{n}.kernel", "e + d") for n in gpt2.QKV),
    ),
    f"{THERE}attn.c_attn.bias": Entry(
        f"{THERE}attn.c_attn.bias", "(+ d)", tuple(Part(f"{HERE}attention.{n}.bias", "+ d") for n in gpt2.QKV)
    ),
}
"""GPT-2's matrices lie inputs first, these outputs first."""
TABLE: Table = tuple(LINEAR.get(one.name, one) for one in gpt2.TABLE)
DERIVED, OMITTED = gpt2.DERIVED, gpt2.OMITTED
