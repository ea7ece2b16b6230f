"""Whole models against the references in transformers, with every weight random."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm import config
from jaxlm.layers.names import flatten
from tests.tiny import CALL, random_model, tokens

ROWS, LENGTH, VOCAB, EMBED, LAYERS, WIDTH = 2, 96, 64, 32, 3, 48
LLAMA = config.Decoder(
    vocab=VOCAB,
    embed=EMBED,
    layers=LAYERS,
    block=config.Block(config.Attention(heads=4, kv_heads=2, head=8), config.Gated(WIDTH)),
    head=config.Untied(),
)
GPT2 = config.Decoder(
    vocab=VOCAB,
    embed=EMBED,
    layers=LAYERS,
    block=config.Block(config.Attention(4, 4, 8, bias="all"), config.Plain(WIDTH, "gelu_tanh", bias="all")),
    position=config.Learned(128),
    norm=config.LayerNorm(),
)
RWKV4 = config.Rwkv4(vocab=VOCAB, embed=EMBED, layers=LAYERS, width=WIDTH)
MIXTRAL = dataclasses.replace(
    LLAMA, block=config.Block(config.Attention(heads=4, kv_heads=2, head=8), config.Moe(6, 2, WIDTH))
)
EAGER = {"attn_implementation": "eager"}


def weights(model):
    """(`top(name)`, `layer(i, name)`): leaves as torch tensors."""
    torch = pytest.importorskip("torch")
    flat = {name: torch.tensor(np.array(leaf)) for name, leaf in flatten(model).items()}
    return flat.__getitem__, lambda i, name: flat[f"blocks.period.0.{name}"][i]


def llama(model, theta: float = 10_000.0):
    transformers = pytest.importorskip("transformers")
    top, layer = weights(model)
    reference = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=VOCAB,
            hidden_size=EMBED,
            intermediate_size=WIDTH,
            num_hidden_layers=LAYERS,
            num_attention_heads=4,
            num_key_value_heads=2,
            rms_norm_eps=1e-6,
            rope_parameters={"rope_type": "default", "rope_theta": theta},
            tie_word_embeddings=False,
            **EAGER,
        )
    )
    state = without_mlps(top, layer)
    for i in range(LAYERS):
        for name in ("gate", "up", "down"):
            state[f"model.layers.{i}.mlp.{name}_proj.weight"] = layer(i, f"mlp.{name}.kernel").T
    reference.load_state_dict(state)
    return reference.eval()


def without_mlps(top, layer):
    """The state that LLaMA and Mixtral share."""
    state = {
        "model.embed_tokens.weight": top("embedding.kernel"),
        "model.norm.weight": top("norm.scale"),
        "lm_head.weight": top("head.kernel").T,
    }
    for i in range(LAYERS):
        at = f"model.layers.{i}."
        state[at + "input_layernorm.weight"] = layer(i, "attention_norm.scale")
        state[at + "post_attention_layernorm.weight"] = layer(i, "mlp_norm.scale")
        for theirs, ours in (("q", "query"), ("k", "key"), ("v", "value")):
            kernel = layer(i, f"attention.{ours}.kernel")
            state[at + f"self_attn.{theirs}_proj.weight"] = kernel.reshape(EMBED, -1).T
        state[at + "self_attn.o_proj.weight"] = layer(i, "attention.out.kernel").reshape(-1, EMBED).T
    return state


def mixtral(model, top_k: int = 2):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    top, layer = weights(model)
    reference = transformers.MixtralForCausalLM(
        transformers.MixtralConfig(
            vocab_size=VOCAB,
            hidden_size=EMBED,
            intermediate_size=WIDTH,
            num_hidden_layers=LAYERS,
            num_attention_heads=4,
            num_key_value_heads=2,
            num_local_experts=6,
            num_experts_per_tok=top_k,
            rms_norm_eps=1e-6,
            rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
            sliding_window=None,
            tie_word_embeddings=False,
            **EAGER,
        )
    )
    state = without_mlps(top, layer)
    for i in range(LAYERS):
        at = f"model.layers.{i}.mlp."
        expert = {name: layer(i, f"mlp.experts.{name}.kernel") for name in ("gate", "up", "down")}
        state[at + "gate.weight"] = layer(i, "mlp.router.kernel").T
        both = torch.cat([expert["gate"], expert["up"]], dim=2)
        state[at + "experts.gate_up_proj"] = both.transpose(1, 2)
        state[at + "experts.down_proj"] = expert["down"].transpose(1, 2)
    reference.load_state_dict(state)
    return reference.eval()


def gpt2(model):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    top, layer = weights(model)
    reference = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=VOCAB, n_positions=128, n_embd=EMBED, n_layer=LAYERS, n_head=4, n_inner=WIDTH, **EAGER
        )
    )
    state = {
        "transformer.wte.weight": top("embedding.kernel"),
        "transformer.wpe.weight": top("position.table.kernel"),
        "transformer.ln_f.weight": top("norm.scale"),
        "transformer.ln_f.bias": top("norm.bias"),
        "lm_head.weight": top("embedding.kernel"),
    }
    for i in range(LAYERS):
        at = f"transformer.h.{i}."
        for theirs, ours in (("ln_1", "attention_norm"), ("ln_2", "mlp_norm")):
            state[at + f"{theirs}.weight"] = layer(i, f"{ours}.scale")
            state[at + f"{theirs}.bias"] = layer(i, f"{ours}.bias")
        three = [f"attention.{name}" for name in ("query", "key", "value")]
        kernels = [layer(i, f"{name}.kernel").reshape(EMBED, -1) for name in three]
        state[at + "attn.c_attn.weight"] = torch.cat(kernels, dim=1)
        state[at + "attn.c_attn.bias"] = torch.cat([layer(i, f"{name}.bias").reshape(-1) for name in three])
        state[at + "attn.c_proj.weight"] = layer(i, "attention.out.kernel").reshape(-1, EMBED)
        state[at + "attn.c_proj.bias"] = layer(i, "attention.out.bias")
        for theirs, ours in (("c_fc", "up"), ("c_proj", "down")):
            state[at + f"mlp.{theirs}.weight"] = layer(i, f"mlp.{ours}.kernel")
            state[at + f"mlp.{theirs}.bias"] = layer(i, f"mlp.{ours}.bias")
    reference.load_state_dict(state)
    return reference.eval()


RWKV4_NAMES = {
    "ln1.weight": "time_norm.scale",
    "ln1.bias": "time_norm.bias",
    "ln2.weight": "channel_norm.scale",
    "ln2.bias": "channel_norm.bias",
    "attention.time_decay": "decay.log_decay",
    "attention.time_first": "decay.bonus",
    "attention.time_mix_key": "key_shift.mix",
    "attention.time_mix_value": "value_shift.mix",
    "attention.time_mix_receptance": "receptance_shift.mix",
    "attention.key.weight": "key.kernel",
    "attention.value.weight": "value.kernel",
    "attention.receptance.weight": "receptance.kernel",
    "attention.output.weight": "out.kernel",
    "feed_forward.time_mix_key": "channel_key_shift.mix",
    "feed_forward.time_mix_receptance": "channel_receptance_shift.mix",
    "feed_forward.key.weight": "up.kernel",
    "feed_forward.receptance.weight": "channel_receptance.kernel",
    "feed_forward.value.weight": "down.kernel",
}


def rwkv4(model):
    transformers = pytest.importorskip("transformers")
    top, layer = weights(model)
    reference = transformers.RwkvForCausalLM(
        transformers.RwkvConfig(
            vocab_size=VOCAB,
            hidden_size=EMBED,
            num_hidden_layers=LAYERS,
            attention_hidden_size=EMBED,
            intermediate_size=WIDTH,
            rescale_every=0,
        )
    )
    state = {
        "rwkv.embeddings.weight": top("embedding.kernel"),
        "rwkv.blocks.0.pre_ln.weight": top("embedding_norm.scale"),
        "rwkv.blocks.0.pre_ln.bias": top("embedding_norm.bias"),
        "rwkv.ln_out.weight": top("norm.scale"),
        "rwkv.ln_out.bias": top("norm.bias"),
        "head.weight": top("head.kernel").T,
    }
    for i in range(LAYERS):
        for theirs, ours in RWKV4_NAMES.items():
            leaf = layer(i, ours)
            leaf = leaf.T if ours.endswith("kernel") else leaf[None, None] if ours.endswith("mix") else leaf
            state[f"rwkv.blocks.{i}.{theirs}"] = leaf
    reference.load_state_dict(state)
    return reference.eval()


def distance(model, reference) -> float:
    """Largest difference of logits in units of what is allowed: 2e-5 of their standard deviation, at least of 1."""
    import torch

    ids = np.random.default_rng(1).integers(0, VOCAB, (ROWS, LENGTH))
    with torch.no_grad():
        wanted = reference(torch.tensor(ids)).logits.numpy()
    got = np.asarray(model.logits(model(tokens(ids), CALL).hidden, CALL))
    assert wanted.std() > 0.5
    return float(np.abs(got - wanted).max() / (2e-5 * max(1.0, wanted.std())))


def test_llama():
    model = random_model(LLAMA)
    assert distance(model, llama(model)) < 1
    assert distance(model, llama(model, theta=9_900.0)) > 100


@pytest.mark.parametrize(("kind", "build"), [(GPT2, gpt2), (RWKV4, rwkv4)], ids=["gpt2", "rwkv4"])
def test_norms_with_bias(kind, build):
    model = random_model(kind)
    reference = build(model)
    assert distance(model, reference) < 1
    scale = dataclasses.replace(model.norm, scale=model.norm.scale * jnp.float32(1.01))
    assert distance(dataclasses.replace(model, norm=scale), reference) > 100


def test_mixtral():
    model = random_model(MIXTRAL, seed=3)
    ids = np.random.default_rng(1).integers(0, VOCAB, (ROWS, LENGTH))
    call = dataclasses.replace(CALL, taps=("router",))
    ordered = np.sort(np.asarray(model(tokens(ids), call).taps["router"]), axis=-1)
    assert (ordered[..., -2] - ordered[..., -3]).min() >= 1e-4, "rounding would choose the expert"
    assert distance(model, mixtral(model)) < 1
    assert distance(model, mixtral(model, top_k=3)) > 100
