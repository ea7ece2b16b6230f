"""A tiny model of every family as its `read` makes it of a config.json: sizes that divide, windows of 4 tokens."""

from jaxlm import config
from jaxlm.families import known

WINDOW = 4
LLAMA = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
}
PHI3 = {name: value for name, value in LLAMA.items() if name != "head_dim"}
GPT2 = {"vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
OPT = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 48}
NEOX = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
NEOX |= {"intermediate_size": 48, "hidden_act": "gelu"}
FALCON = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
BERT = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
BERT |= {"intermediate_size": 48, "max_position_embeddings": 64}
MODERN = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 6, "num_attention_heads": 4}
MODERN |= {"intermediate_size": 48, "local_attention": 2 * (WINDOW - 1)}
T5 = {"vocab_size": 64, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
GEMMA = LLAMA | {"tie_word_embeddings": True}
TOLD = {
    "llama": LLAMA,
    "mistral": LLAMA | {"sliding_window": WINDOW},
    "mixtral": LLAMA | {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": WINDOW},
    "qwen2": LLAMA,
    "qwen3": LLAMA,
    "qwen3_moe": LLAMA
    | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "norm_topk_prob": False},
    "olmo2": LLAMA,
    "phi3": PHI3 | {"sliding_window": WINDOW},
    "gemma": GEMMA,
    "gemma2": GEMMA
    | {"sliding_window": WINDOW, "query_pre_attn_scalar": 16, "attn_logit_softcapping": 3.0}
    | {"final_logit_softcapping": 4.0},
    "gemma3_text": GEMMA | {"sliding_window": WINDOW, "sliding_window_pattern": 2, "query_pre_attn_scalar": 16},
    "starcoder2": PHI3 | {"sliding_window": WINDOW},
    "gpt2": GPT2,
    "gpt_bigcode": GPT2,
    "gptj": GPT2 | {"rotary_dim": 4},
    "codegen": GPT2 | {"rotary_dim": 4},
    "opt": OPT | {"max_position_embeddings": 64},
    "gpt_neox": NEOX,
    "falcon": FALCON | {"new_decoder_architecture": True, "num_kv_heads": 2},
    "bert": BERT,
    "roberta": BERT | {"max_position_embeddings": 66},
    "distilbert": {"vocab_size": 64, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48}
    | {"max_position_embeddings": 64},
    "modernbert": MODERN,
    "deberta-v2": BERT
    | {"relative_attention": True, "share_att_key": True, "position_biased_input": False, "pos_att_type": "p2c|c2p"}
    | {"position_buckets": 4, "norm_rel_ebd": "layer_norm"},
    "albert": BERT | {"embedding_size": 16},
    "electra": BERT | {"embedding_size": 16},
    "rwkv": {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 48},
    "t5": T5 | {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 9},
    "mt5": T5 | {"num_decoder_layers": 1},
    "bart": {"vocab_size": 64, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2}
    | {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48}
    | {"max_position_embeddings": 64},
    "bloom": {"vocab_size": 64, "hidden_size": 32, "n_layer": 2, "n_head": 4},
}
"""model_type -> config.json; a family without one is missed by `test_decoding.py`."""


def kind(model_type: str) -> config.Decoder | config.Encoder | config.EncoderDecoder:
    """The tiny model of a family."""
    return known.family(model_type).read(TOLD[model_type] | {"model_type": model_type})


ENCODERS = tuple(name for name in TOLD if isinstance(kind(name), config.Encoder))
PAIRS = tuple(name for name in TOLD if isinstance(kind(name), config.EncoderDecoder))


def windows(model: config.Decoder | config.Encoder | config.EncoderDecoder) -> set[int | None]:
    """Windows of a model's layers."""
    if isinstance(model, config.Rwkv4):
        return {None}
    blocks = getattr(model.block, "period", (model.block,))
    return {block.attention.window for block in blocks}
