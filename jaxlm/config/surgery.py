"""A student's config from its teacher's: fewer layers, heads or features."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from jaxlm.config.block import Attention, Block, Layers, Moe, Pattern, Shared, blocks, ends_normed
from jaxlm.config.errors import UsageError
from jaxlm.config.model import Decoder, Encoder, EncoderDecoder, Generator, Model
from jaxlm.config.position import Alibi, RelativeBias
from jaxlm.config.recurrent import Recurrent, Rwkv7


@dataclass(frozen=True)
class Cut:
    """What a student keeps of its teacher; what is 0 or empty stays as it is."""

    layers: tuple[int, ...] = ()
    """Layers, counted from 0, in the order in which the student has them; of an encoder-decoder its decoder's."""
    encoder_layers: tuple[int, ...] = ()
    """Those of an encoder-decoder's encoder."""
    heads: int = 0
    """Query heads of each layer; key and value heads in proportion."""
    width: int = 0
    """Hidden features of each MLP."""
    embed: int = 0
    """Features of the residual stream."""
    by: Literal["importance", "first"] = "importance"
    """Which heads and features: those whose weights are the largest (see `distill.surgery`), or the first ones."""


def every_other(layers: int) -> tuple[int, ...]:
    """One layer of two, from the first on (DistilBERT, Sanh et al. 2019, arXiv:1910.01108, section 3)."""
    return tuple(range(0, layers, 2))


def cut(model: Model, what: Cut) -> Model:
    """The config of what is left of a model; heads that look further ahead are not. Raises UsageError."""
    match model:
        case Decoder():
            model = dataclasses.replace(model, ahead=0)
        case Encoder(generator=Generator()):
            raise UsageError("model.generator is a Generator: cut the discriminator alone, with no_generator")
    if isinstance(model, Recurrent):
        return _cut_recurrent(model, what)
    own, count = _chosen_blocks(model, what)
    _check_heads(model, what)
    if isinstance(own, Block):
        own = _narrow(own, what)
    else:
        parts = ("period",) if isinstance(own, Shared) else ("prefix", "period", "suffix")
        own = dataclasses.replace(own, **{p: tuple(_narrow(one, what) for one in getattr(own, p)) for p in parts})
    if what.embed > model.embed:
        raise UsageError(f"embed is {what.embed}: the teacher has {model.embed} features, and none can be added")
    return dataclasses.replace(model, block=own, embed=what.embed or model.embed, **count)


def _chosen_blocks(model: Decoder | Encoder | EncoderDecoder, what: Cut) -> tuple[Layers, dict[str, int]]:
    """The blocks of the layers that are kept, and how many there are."""
    if isinstance(model, EncoderDecoder):
        counts = {"encoder_layers": what.encoder_layers, "decoder_layers": what.layers}
        return model.block, {
            name: len(_checked(kept, getattr(model, name), name)) if kept else getattr(model, name)
            for name, kept in counts.items()
        }
    if what.encoder_layers:
        raise UsageError(f"encoder_layers: a {type(model).__name__} has one stack of layers; use layers")
    if not what.layers:
        return model.block, {"layers": model.layers}
    kept = _checked(what.layers, model.layers, "layers")
    if isinstance(model.block, Shared):
        if len(model.block.period) > 1:
            raise UsageError("model.block is Shared with several layers of its own: keep all layers")
        return model.block, {"layers": len(kept)}
    all_blocks = blocks(model.block, model.layers)
    block = pattern([all_blocks[layer] for layer in kept])
    if ends_normed(block, len(kept)) != ends_normed(model.block, model.layers):
        raise UsageError(
            "layers: the last one that is kept is not wired as the model's last one is; keep another last"
        )
    return block, {"layers": len(kept)}


def pattern(layers: Sequence[Block]) -> Block | Pattern:
    """These blocks in order, as the shortest period that makes them."""
    size = next(
        n
        for n in range(1, len(layers) + 1)
        if len(layers) % n == 0 and all(one == layers[place % n] for place, one in enumerate(layers))
    )
    return layers[0] if size == 1 else Pattern(tuple(layers[:size]))


def _checked(kept: tuple[int, ...], there: int, name: str) -> tuple[int, ...]:
    if beyond := [layer for layer in kept if not 0 <= layer < there]:
        raise UsageError(f"{name} names layer {beyond[0]}: the teacher has {there}, counted from 0")
    return kept


def _check_heads(model: Decoder | Encoder | EncoderDecoder, what: Cut) -> None:
    if what.heads and isinstance(model.position, Alibi | RelativeBias):
        raise UsageError(
            f"heads is {what.heads}: {type(model.position).__name__} gives each head biases for all layers alike, "
            "of which each would keep others; use 0"
        )


def _narrow(block: Block, what: Cut) -> Block:
    attention, mlp = block.attention, block.mlp
    if what.heads:
        attention = _fewer_heads(attention, what.heads)
    if what.width:
        if isinstance(mlp, Moe):
            raise UsageError(f"width is {what.width}: a mixture's experts are not cut; use 0")
        if what.width > mlp.width:
            raise UsageError(f"width is {what.width}: the teacher has {mlp.width} hidden features")
        mlp = dataclasses.replace(mlp, width=what.width)
    return dataclasses.replace(block, attention=attention, mlp=mlp)


def _fewer_heads(attention: Attention, heads: int) -> Attention:
    """With the same number of query heads for each key head, or fewer for a lone one."""
    shared = attention.heads // attention.kv_heads
    if heads > attention.heads or (attention.kv_heads > 1 and heads % shared):
        raise UsageError(
            f"heads is {heads}: the teacher has {attention.heads}, {shared} to each of {attention.kv_heads} key "
            f"heads; use a multiple of {shared} up to {attention.heads}"
        )
    kv_heads = heads // shared if attention.kv_heads > 1 else 1
    return dataclasses.replace(attention, heads=heads, kv_heads=kv_heads)


def _cut_recurrent(model: Recurrent, what: Cut) -> Recurrent:
    if narrower := [name for name in ("heads", "width", "embed", "encoder_layers") if getattr(what, name)]:
        raise UsageError(f"{narrower[0]}: of a {type(model).__name__} whole layers can be cut only; use layers")
    kept = _checked(what.layers, model.layers, "layers") or tuple(range(model.layers))
    if isinstance(model, Rwkv7) and (kept[0] or 0 in kept[1:]):
        raise UsageError(
            "layers: all layers of a Rwkv7 read the first one's values; begin with 0, and have it once"
        )
    return dataclasses.replace(model, layers=len(kept))
