"""T5 (Raffel et al. 2019, arXiv:1910.10683), its version 1.1 and FLAN-T5: sizes, settings, tensors.

Scores are not divided by the root of a head's features: queries are trained to be as small. Version 1.0 ties its
head to the embedding and divides what it scores by sqrt(embed); 1.1 (Shazeer 2020, arXiv:2002.05202), FLAN
(arXiv:2210.11416) and mT5 (arXiv:2010.11934) have a matrix of their own and gated layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxlm.config.block import Attention, Block, Gated, Mlp, Plain, RMSNorm
from jaxlm.config.errors import Failure, UsageError
from jaxlm.config.head import Head, Tied, Untied
from jaxlm.config.model import EncoderDecoder
from jaxlm.config.position import RelativeBias
from jaxlm.families.settings import Settings, agreed
from jaxlm.families.table import Table, entry

MODEL_TYPES = ("t5",)
OTHER = (
    "this model is no T5: one kind of block, a norm before each branch, buckets of distances, RMSNorm, no biases, "
    "scores not divided, and a tied head of divided hidden states or an untied one"
)
SIZES = {
    "small": (6, 512, 8, 64, 2048),
    "base": (12, 768, 12, 64, 3072),
    "large": (24, 1024, 16, 64, 4096),
    "3b": (24, 1024, 32, 128, 16_384),
    "11b": (24, 1024, 128, 128, 65_536),
}
"""Size -> layers of each half, features, heads, features of a head, width."""
NEWER = {
    "small": (8, 512, 6, 64, 1024),
    "base": (12, 768, 12, 64, 2048),
    "large": (24, 1024, 16, 64, 2816),
    "xl": (24, 2048, 32, 64, 5120),
    "xxl": (24, 4096, 64, 64, 10_240),
}
"""The same of 1.1, FLAN and mT5."""
VOCAB = 32_128
START = 0
"""The token of padding: targets begin with it."""


def t5(size: str) -> EncoderDecoder:
    """small to 11b of version 1.0.

    60,506,624, 222,903,552, 737,668,096, 2,851,598,336 and 11,307,321,344 parameters.
    """
    layers, embed, heads, head, width = SIZES[size]
    attention = Attention(heads, heads, head, scale=1.0)
    return _model(VOCAB, embed, (layers, layers), attention, Plain(width, "relu"), scaled(embed))


def t5_1_1(size: str) -> EncoderDecoder:
    """small to xxl of version 1.1 and FLAN.

    76,961,152, 247,577,856, 783,150,080, 2,849,757,184 and 11,135,332,352 parameters.
    """
    return newer(size, VOCAB)


def newer(size: str, vocab: int) -> EncoderDecoder:
    """A size of 1.1 and its relatives, for so many tokens."""
    layers, embed, heads, head, width = NEWER[size]
    attention = Attention(heads, heads, head, scale=1.0)
    return _model(vocab, embed, (layers, layers), attention, Gated(width, "gelu_tanh"), Untied())


def scaled(embed: int) -> Tied:
    """The head of version 1.0."""
    return Tied(scale=embed**-0.5)


def _model(
    vocab: int,
    embed: int,
    layers: tuple[int, int],
    attention: Attention,
    mlp: Mlp,
    head: Head,
    position: RelativeBias = RelativeBias(),
    epsilon: float = 1e-6,
    start: int | None = START,
) -> EncoderDecoder:
    return EncoderDecoder(
        vocab=vocab,
        embed=embed,
        encoder_layers=layers[0],
        decoder_layers=layers[1],
        block=Block(attention, mlp),
        position=position,
        norm=RMSNorm(epsilon),
        head=head,
        start=start,
    )


MLPS = {
    "relu": (Plain, "relu"),
    "gated-gelu": (Gated, "gelu_tanh"),
    "gated-silu": (Gated, "silu"),
    "gated-relu": (Gated, "relu"),
}
"""feed_forward_proj -> kind and activation; a gated gelu is approximate, as in the released code."""
IGNORED = ("classifier_dropout", "dense_act_fn", "dropout_rate", "initializer_factor", "is_gated_act")
"""Settings of training, or that follow from feed_forward_proj."""
OLDER = ("n_positions", "output_past")
"""Settings of some files that nothing reads: no position is the last."""


def read(settings: Mapping[str, Any]) -> EncoderDecoder:
    """The model of a config.json. Raises Failure for settings that are missing or not known."""
    told = Settings({"decoder_start_token_id": START} | dict(settings))
    tied = told.take("tie_word_embeddings", True)
    # Later files of models that are not call them tied, and say in this way that they are not.
    tied = told.take("scale_decoder_outputs", tied) and tied
    return like_t5(told, "T5", "relu", tied=tied)


def like_t5(told: Settings, stem: str, mlp: str, *, tied: bool) -> EncoderDecoder:
    """What the settings of T5 and its relatives have in common; `mlp` is their feed_forward_proj where not told."""
    expect_generation(told, stem)
    embed, layers, heads = told.take("d_model"), told.take("num_layers"), told.take("num_heads")
    kind, activation = told.choose("feed_forward_proj", MLPS, mlp)
    model = _model(
        told.take("vocab_size"),
        embed,
        (layers, told.take("num_decoder_layers", layers)),
        Attention(heads, heads, told.take("d_kv"), scale=1.0),
        kind(told.take("d_ff"), activation),
        scaled(embed) if tied else Untied(),
        RelativeBias(
            told.take("relative_attention_num_buckets", 32), told.take("relative_attention_max_distance", 128)
        ),
        told.take("layer_norm_epsilon", 1e-6),
        told.take("decoder_start_token_id"),
    )
    told.finish(*IGNORED, *OLDER)
    return model


def expect_generation(told: Settings, stem: str, *others: str) -> None:
    """Raises Failure where `architectures` names another task than writing text."""
    name = (told.take("architectures", None) or [f"{stem}ForConditionalGeneration"])[0]
    known = [f"{stem}ForConditionalGeneration", f"{stem}WithLMHeadModel", *others]
    if name not in known:
        raise Failure(f"config.json: architectures names {name!r}, and only {known[0]} is known here")


def write(model: EncoderDecoder, length: int) -> dict[str, Any]:
    """The config.json of a model that `read` would give. Raises UsageError for any other."""
    return agreed(read, common(model, "T5", OTHER), model, OTHER)


def common(model: EncoderDecoder, stem: str, other: str) -> dict[str, Any]:
    """The settings that T5 and its relatives have in common. Raises UsageError with the text `other`."""
    block, position = model.block, model.position
    names = {parts: name for name, parts in MLPS.items()}
    name = names.get((type(block.mlp), getattr(block.mlp, "activation", "")))
    if name is None or not isinstance(position, RelativeBias):
        raise UsageError(other)
    return {
        "model_type": stem.lower(),
        "architectures": [f"{stem}ForConditionalGeneration"],
        "is_encoder_decoder": True,
        "vocab_size": model.vocab,
        "d_model": model.embed,
        "d_kv": block.attention.head,
        "d_ff": block.mlp.width,
        "num_layers": model.encoder_layers,
        "num_decoder_layers": model.decoder_layers,
        "num_heads": block.attention.heads,
        "relative_attention_num_buckets": position.buckets,
        "relative_attention_max_distance": position.distance,
        "layer_norm_epsilon": model.norm.epsilon,
        "feed_forward_proj": name,
        "tie_word_embeddings": isinstance(model.head, Tied),
        "decoder_start_token_id": model.start,
    }


def _attention(there: str, here: str) -> Table:
    """Queries, keys, values and what follows."""
    return (
        *(
            entry(f"{there}.{name[0]}.weight", f"{here}.{name}.kernel", "(h d) e", "e h d")
            for name in ("query", "key", "value")
        ),
        entry(f"{there}.o.weight", f"{here}.out.kernel", "e (h d)", "h d e"),
    )


def _half(there: str, here: str, last: str, position: str, *, cross: bool, gated: bool) -> Table:
    """The layers of one half, whose names begin like this, its distances and its last norm."""
    theirs, ours, inner = f"{there}.block.{{layer}}.layer.", f"{here}.{{layer}}.", 2 if cross else 1
    crossing = (
        *_attention(f"{theirs}1.EncDecAttention", f"{ours}cross"),
        entry(f"{theirs}1.layer_norm.weight", f"{ours}cross_norm.scale"),
    )
    into = {"gate": "wi_0", "up": "wi_1", "down": "wo"} if gated else {"up": "wi", "down": "wo"}
    return (
        *_attention(f"{theirs}0.SelfAttention", f"{ours}attention"),
        entry(f"{theirs}0.layer_norm.weight", f"{ours}attention_norm.scale"),
        *(crossing if cross else ()),
        *(
            entry(f"{theirs}{inner}.DenseReluDense.{name}.weight", f"{ours}mlp.{part}.kernel", "o i", "i o")
            for part, name in into.items()
        ),
        entry(f"{theirs}{inner}.layer_norm.weight", f"{ours}mlp_norm.scale"),
        entry(
            f"{there}.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
            f"{position}.table.kernel",
            "b h",
            "b h",
        ),
        entry(f"{there}.final_layer_norm.weight", f"{last}.scale"),
    )


def table(model: EncoderDecoder) -> Table:
    """How T5 names the tensors of a model that it has."""
    gated = isinstance(model.block.mlp, Gated)
    return (
        entry("shared.weight", "decoder.embedding.kernel", "v e", "v e"),
        *_half("encoder", "encoder", "encoder_norm", "encoder_position", cross=False, gated=gated),
        *_half("decoder", "decoder.blocks", "decoder.norm", "decoder.position", cross=True, gated=gated),
        entry("lm_head.weight", "decoder.head.kernel", "v e", "e v"),
    )


TABLE = table
DERIVED = (
    r"(encoder|decoder)\.embed_tokens\.weight",
    r"lm_head\.weight",
    r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight",
)
"""Tensors of published files that follow from the others, or that nothing reads."""
OMITTED = ""
