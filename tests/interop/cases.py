"""Small models of every family that is exchanged, as transformers is told of them."""

LLAMA = {
    "vocab_size": 71,
    "hidden_size": 48,
    "intermediate_size": 56,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 10,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 128,
    "tie_word_embeddings": False,
}
SCALED = {"rope_theta": 5e5, "rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 32}
SCALED |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
YARN = {"rope_theta": 1e4, "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
GPT2 = {"vocab_size": 71, "n_embd": 48, "n_layer": 3, "n_head": 6, "n_positions": 128}
PHI3 = {name: value for name, value in LLAMA.items() if name != "head_dim"} | {"pad_token_id": 0}
STARCODER2 = {name: value for name, value in LLAMA.items() if name not in ("head_dim", "rms_norm_eps")}
STARCODER2 |= {"tie_word_embeddings": True, "norm_epsilon": 1e-4, "rope_parameters": YARN}
MIXTRAL = LLAMA | {"num_local_experts": 5, "num_experts_per_tok": 2, "router_jitter_noise": 0.1}
OPT = {"vocab_size": 71, "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 6, "ffn_dim": 40}
OPT |= {"max_position_embeddings": 128, "word_embed_proj_dim": 48, "pad_token_id": 0}
NEOX = {"vocab_size": 71, "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 3}
NEOX |= {"intermediate_size": 40, "max_position_embeddings": 128}
GPTJ = {"vocab_size": 71, "n_embd": 48, "n_layer": 3, "n_head": 3, "n_positions": 128, "rotary_dim": 6}
FALCON = {"vocab_size": 71, "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 6}
FALCON |= {"max_position_embeddings": 128, "ffn_hidden_size": 40}
NEWER = FALCON | {"new_decoder_architecture": True, "num_kv_heads": 2}
# Slopes of 4 heads are exact in 16 bits, to which transformers rounds them.
SEQUENTIAL = FALCON | {"alibi": True, "parallel_attn": False, "num_attention_heads": 4, "bias": True}
BLOOM = {"vocab_size": 71, "hidden_size": 48, "n_layer": 3, "n_head": 4}
MOE3 = LLAMA | {"num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 20}
GEMMA2 = LLAMA | {"tie_word_embeddings": True, "num_hidden_layers": 4, "sliding_window": 7}
GEMMA2 |= {"attn_logit_softcapping": 3.0, "final_logit_softcapping": 4.0, "query_pre_attn_scalar": 24}
GEMMA3 = LLAMA | {"tie_word_embeddings": True, "num_hidden_layers": 3, "sliding_window": 7}
GEMMA3 |= {"sliding_window_pattern": 2, "query_pre_attn_scalar": 24}
BERT = {"vocab_size": 71, "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 6}
BERT |= {"intermediate_size": 40, "max_position_embeddings": 128}
ROBERTA = BERT | {"pad_token_id": 0, "max_position_embeddings": 133, "layer_norm_eps": 1e-5}
DISTIL = {"vocab_size": 71, "dim": 48, "n_layers": 3, "n_heads": 6, "hidden_dim": 40}
DISTIL |= {"max_position_embeddings": 128}
ELECTRA = BERT | {"embedding_size": 20}
MODERN = {"vocab_size": 71, "hidden_size": 48, "num_hidden_layers": 5, "num_attention_heads": 6}
MODERN |= {"intermediate_size": 40, "max_position_embeddings": 128, "local_attention": 14, "pad_token_id": 0}
DEBERTA = BERT | {"relative_attention": True, "share_att_key": True, "position_biased_input": False}
DEBERTA |= {"position_buckets": 16, "norm_rel_ebd": "layer_norm", "pos_att_type": "p2c|c2p", "type_vocab_size": 0}
# Narrow, for scores that nothing divides: of 48 features transformers itself is 1e-4 off its own float64.
T5 = {"vocab_size": 71, "d_model": 24, "d_kv": 5, "d_ff": 40, "num_layers": 3, "num_decoder_layers": 2}
T5 |= {"num_heads": 4}
BART = {"vocab_size": 71, "d_model": 48, "encoder_layers": 3, "decoder_layers": 2}
BART |= {"encoder_attention_heads": 6, "decoder_attention_heads": 6, "encoder_ffn_dim": 40, "decoder_ffn_dim": 40}
BART |= {"max_position_embeddings": 160}
LABELS = {"id2label": {"0": "a", "1": "b", "2": "c"}}


def task(kind, name):
    return {"architectures": [f"{kind}{name}"]}


RWKV = {"vocab_size": 71, "hidden_size": 48, "num_hidden_layers": 3, "context_length": 128, "rescale_every": 0}
CASES = {
    "llama": ("Llama", LLAMA),
    "llama, tied, biases": (
        "Llama",
        LLAMA | {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True, "num_key_value_heads": 6},
    ),
    "llama 3.1": ("Llama", LLAMA | {"rope_parameters": SCALED, "num_key_value_heads": 1}),
    "llama, yarn": ("Llama", LLAMA | {"rope_parameters": YARN}),
    "mistral": ("Mistral", LLAMA | {"sliding_window": 7}),
    "mistral, one head": (
        "Mistral",
        LLAMA | {"sliding_window": 5, "num_key_value_heads": 1, "tie_word_embeddings": True},
    ),
    "mixtral": ("Mixtral", MIXTRAL),
    "mixtral, window": (
        "Mixtral",
        MIXTRAL
        | {"sliding_window": 7, "num_local_experts": 3, "num_experts_per_tok": 1, "tie_word_embeddings": True},
    ),
    "qwen2": ("Qwen2", LLAMA | {"tie_word_embeddings": True}),
    "qwen2, one head": ("Qwen2", LLAMA | {"num_key_value_heads": 1, "rope_parameters": YARN}),
    "qwen3": ("Qwen3", LLAMA),
    "qwen3, tied, biases": (
        "Qwen3",
        LLAMA | {"num_key_value_heads": 3, "tie_word_embeddings": True, "attention_bias": True},
    ),
    "qwen3-moe": ("Qwen3Moe", MOE3),
    "qwen3-moe, renormalized": (
        "Qwen3Moe",
        MOE3 | {"norm_topk_prob": True, "num_experts": 4, "num_experts_per_tok": 3, "attention_bias": True},
    ),
    "olmo2": ("Olmo2", LLAMA),
    "olmo2, tied, biases": (
        "Olmo2",
        LLAMA
        | {"num_key_value_heads": 6, "tie_word_embeddings": True, "attention_bias": True}
        | {"rope_parameters": YARN},
    ),
    "gemma": ("Gemma", LLAMA | {"tie_word_embeddings": True}),
    "gemma, one head": (
        "Gemma",
        LLAMA | {"tie_word_embeddings": True, "num_key_value_heads": 1, "attention_bias": True},
    ),
    "gemma2": ("Gemma2", GEMMA2),
    "gemma2, no caps": (
        "Gemma2",
        GEMMA2
        | {"attn_logit_softcapping": None, "final_logit_softcapping": None, "query_pre_attn_scalar": 10}
        | {"num_hidden_layers": 2, "num_key_value_heads": 6},
    ),
    "gemma3": ("Gemma3", GEMMA3),
    "gemma3, scaled": (
        "Gemma3",
        GEMMA3
        | {"num_hidden_layers": 5, "sliding_window_pattern": 3, "query_pre_attn_scalar": 10}
        | {"rope_theta": 2e5, "rope_scaling": {"rope_type": "linear", "factor": 8.0}, "rope_local_base_freq": 5e3},
    ),
    "phi3": ("Phi3", PHI3),
    "phi3, window": ("Phi3", PHI3 | {"sliding_window": 5, "num_key_value_heads": 3, "tie_word_embeddings": True}),
    "starcoder": ("GPTBigCode", GPT2),
    "starcoder, narrow": ("GPTBigCode", GPT2 | {"n_inner": 40, "n_head": 3, "n_layer": 1}),
    "starcoder2": ("Starcoder2", STARCODER2),
    "starcoder2, window": (
        "Starcoder2",
        STARCODER2
        | {"sliding_window": 7, "tie_word_embeddings": False, "num_key_value_heads": 3, "use_bias": False},
    ),
    "opt": ("OPT", OPT),
    "opt, untied": ("OPT", OPT | {"tie_word_embeddings": False, "num_attention_heads": 3, "num_hidden_layers": 1}),
    "gpt-neox": ("GPTNeoX", NEOX),
    "gpt-neox, sequential": (
        "GPTNeoX",
        NEOX
        | {"use_parallel_residual": False, "attention_bias": False, "tie_word_embeddings": True}
        | {"hidden_act": "gelu_pytorch_tanh", "rope_parameters": {"rope_theta": 5e3, "partial_rotary_factor": 0.5}},
    ),
    "gpt-j": ("GPTJ", GPTJ),
    "gpt-j, narrow": ("GPTJ", GPTJ | {"n_inner": 40, "n_head": 6, "rotary_dim": 8, "n_layer": 1}),
    "codegen": ("CodeGen", GPTJ | {"n_head": 8, "rotary_dim": 4}),
    "codegen, narrow": ("CodeGen", GPTJ | {"n_inner": 40, "n_head": 4, "n_layer": 1}),
    "falcon": ("Falcon", FALCON),
    "falcon, every head": ("Falcon", FALCON | {"multi_query": False, "bias": True, "tie_word_embeddings": False}),
    "falcon, grouped": ("Falcon", NEWER | {"rope_parameters": {"rope_theta": 5e3, "rope_type": "default"}}),
    "falcon, grouped, one norm": (
        "Falcon",
        NEWER | {"num_ln_in_parallel_attn": 1, "num_kv_heads": 3, "bias": True},
    ),
    "falcon, alibi": ("Falcon", SEQUENTIAL | {"multi_query": False}),
    "falcon, alibi, one head": ("Falcon", SEQUENTIAL | {"activation": "gelu_pytorch_tanh", "bias": False}),
    "bloom": ("Bloom", BLOOM),
    "bloom, odd": ("Bloom", BLOOM | {"n_head": 6, "n_layer": 1, "layer_norm_epsilon": 1e-3}),
    "rwkv": ("Rwkv", RWKV),
    "rwkv, tied, narrow": ("Rwkv", RWKV | {"tie_word_embeddings": True, "intermediate_size": 40}),
    "gpt2": ("GPT2", GPT2),
    "gpt2, narrow": ("GPT2", GPT2 | {"n_inner": 40, "n_head": 3, "n_layer": 1}),
    "bert": ("Bert", BERT | task("Bert", "ForMaskedLM")),
    "bert, pretraining": (
        "Bert",
        BERT
        | {"hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-3, "type_vocab_size": 3, "num_hidden_layers": 1}
        | task("Bert", "ForPreTraining"),
    ),
    "bert, sequences": ("Bert", BERT | LABELS | task("Bert", "ForSequenceClassification")),
    "bert, tags": ("Bert", BERT | LABELS | {"hidden_act": "relu"} | task("Bert", "ForTokenClassification")),
    "bert, answers": ("Bert", BERT | task("Bert", "ForQuestionAnswering")),
    "bert, choices": ("Bert", BERT | task("Bert", "ForMultipleChoice")),
    "roberta": ("Roberta", ROBERTA | task("Roberta", "ForMaskedLM")),
    "roberta, sequences": (
        "Roberta",
        ROBERTA | LABELS | {"pad_token_id": 3, "hidden_act": "relu"} | task("Roberta", "ForSequenceClassification"),
    ),
    "roberta, answers": ("Roberta", ROBERTA | {"type_vocab_size": 1} | task("Roberta", "ForQuestionAnswering")),
    "distilbert": ("DistilBert", DISTIL | task("DistilBert", "ForMaskedLM")),
    "distilbert, sequences": (
        "DistilBert",
        DISTIL | LABELS | {"n_heads": 3, "activation": "relu"} | task("DistilBert", "ForSequenceClassification"),
    ),
    "distilbert, tags": ("DistilBert", DISTIL | LABELS | task("DistilBert", "ForTokenClassification")),
    "electra": ("Electra", ELECTRA | task("Electra", "ForMaskedLM")),
    "electra, replaced": ("Electra", ELECTRA | task("Electra", "ForPreTraining")),
    "electra, wide": (
        "Electra",
        ELECTRA | {"embedding_size": 48, "hidden_act": "relu"} | task("Electra", "ForPreTraining"),
    ),
    "electra, sequences": ("Electra", ELECTRA | LABELS | task("Electra", "ForSequenceClassification")),
    "albert": ("Albert", ELECTRA | task("Albert", "ForMaskedLM")),
    "albert, pretraining": (
        "Albert",
        ELECTRA | {"embedding_size": 48, "hidden_act": "gelu"} | task("Albert", "ForPreTraining"),
    ),
    "albert, choices": ("Albert", ELECTRA | task("Albert", "ForMultipleChoice")),
    "modernbert": ("ModernBert", MODERN | task("ModernBert", "ForMaskedLM")),
    "modernbert, biases": (
        "ModernBert",
        MODERN
        | {"attention_bias": True, "mlp_bias": True, "norm_bias": True, "classifier_bias": True, "norm_eps": 1e-3}
        | {"num_hidden_layers": 4, "global_attn_every_n_layers": 2, "hidden_activation": "silu"}
        | task("ModernBert", "ForMaskedLM"),
    ),
    "modernbert, hidden states": (
        "ModernBert",
        MODERN | {"num_hidden_layers": 3} | task("ModernBert", "Model"),
    ),
    "deberta": ("DebertaV2", DEBERTA | task("DebertaV2", "ForMaskedLM")),
    "deberta, types": (
        "DebertaV2",
        DEBERTA
        | {"norm_rel_ebd": "none", "type_vocab_size": 2, "position_buckets": 12, "max_relative_positions": 40}
        | {"num_hidden_layers": 1, "hidden_act": "relu"}
        | task("DebertaV2", "ForMaskedLM"),
    ),
    "deberta, sequences": ("DebertaV2", DEBERTA | LABELS | task("DebertaV2", "ForSequenceClassification")),
    "t5": ("T5", T5 | task("T5", "ForConditionalGeneration")),
    "t5, short of reach": (
        "T5",
        T5
        | {"relative_attention_num_buckets": 12, "relative_attention_max_distance": 40, "num_layers": 1}
        | {"num_decoder_layers": 3, "num_heads": 3, "layer_norm_epsilon": 1e-3}
        | task("T5", "ForConditionalGeneration"),
    ),
    "t5 1.1": (
        "T5",
        T5
        | {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
        | task("T5", "ForConditionalGeneration"),
    ),
    "mt5": ("MT5", T5 | task("MT5", "ForConditionalGeneration")),
    "mt5, gated by silu": (
        "MT5",
        T5 | {"feed_forward_proj": "gated-silu", "num_layers": 1} | task("MT5", "ForConditionalGeneration"),
    ),
    "bart": ("Bart", BART | task("Bart", "ForConditionalGeneration")),
    "bart, relu": (
        "Bart",
        BART
        | {"activation_function": "relu", "encoder_layers": 1, "decoder_layers": 3, "vocab_size": 70}
        | {"encoder_attention_heads": 3, "decoder_attention_heads": 3}
        | task("Bart", "ForConditionalGeneration"),
    ),
    "bert, hidden states": ("Bert", BERT | {"num_attention_heads": 3} | task("Bert", "Model")),
}
ORDINARY = {kind: case for case, (kind, _) in reversed(CASES.items())}.values()
ORDINARY = {*ORDINARY, "gpt-neox, sequential", "falcon, grouped", "falcon, alibi", "bert, pretraining"}
ORDINARY -= {"mt5"}
ORDINARY |= {"t5 1.1", "bert, tags", "bert, hidden states", "electra, replaced"}
"""One of each, and what is wired otherwise; the others are compared at night."""


def implementation(settings):
    """Eager attention of Falcon subtracts ALiBi twice: in its mask, and again from the products."""
    return "sdpa" if settings.get("alibi") else "eager"
