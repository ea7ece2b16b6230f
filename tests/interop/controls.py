"""Models that are wrong in one place: a comparison that cannot tell them apart shows nothing."""

import dataclasses

import jax.numpy as jnp

from jaxlm import config
from jaxlm.layers.moe.module import Moe
from jaxlm.layers.norms import RMSNorm, ZeroCentered
from jaxlm.models.encoder_decoder import EncoderDecoder


def controls(model):
    """Models that are wrong in one place: the reference must tell them apart."""
    if isinstance(model.config, config.Rwkv4):
        return recurrent(model)
    return of_pairs(model) if isinstance(model, EncoderDecoder) else of_stacks(model)


def of_pairs(model):
    """Of both halves; the encoder's distances lie on both sides, the decoder attends to its memory."""
    decoder, position = model.decoder, model.encoder_position
    found = {f"{what} of the decoder": model.replace(decoder=one) for what, one in of_stacks(decoder).items()}
    found |= {
        f"{what} of the encoder": model.replace(encoder=one) for what, one in of_blocks(model.encoder).items()
    }
    half = decoder.blocks.period[0]
    crossed = half.replace(cross=transposed(half.replace(attention=half.cross)).attention)
    found["memory's kernel transposed"] = model.replace(
        decoder=decoder.replace(blocks=decoder.blocks.replace(period=(crossed,)))
    )
    kernel = position.table.kernel
    match model.config.position:
        case config.RelativeBias(buckets):
            found["sides of distances"] = jnp.roll(kernel, buckets // 2, axis=0)
            found["the decoder's distances"] = decoder.position.table.kernel
        case config.Learned():
            found["positions of the encoder"] = jnp.roll(kernel, 1, axis=0)
            found["the decoder's positions"] = decoder.position.table.kernel
    for what, wrong in found.items():
        if isinstance(wrong, jnp.ndarray):
            found[what] = model.replace(
                encoder_position=position.replace(table=position.table.replace(kernel=wrong))
            )
    if model.encoder_norm is not None:
        found["no norm of the memory"] = model.replace(encoder_norm=None)
    if model.encoder_embedding_norm is not None:
        found["no norm of the source"] = model.replace(encoder_embedding_norm=None)
    return found


def of_stacks(model):
    """Of what has one stack."""
    found, position = {}, model.position
    match model.config.position:
        case config.Rope(theta):
            found["theta"] = position.replace(config=dataclasses.replace(position.config, theta=2 * theta))
            other = "interleaved" if position.config.pairs == "halves" else "halves"
            found["pairs"] = position.replace(config=dataclasses.replace(position.config, pairs=other))
        case config.Learned():
            kernel = jnp.roll(position.table.kernel, 1, axis=0)
            found["table"] = position.replace(table=position.table.replace(kernel=kernel))
        case config.Disentangled(_, distance):
            further = dataclasses.replace(position.config, distance=distance + 20)
            found["reach of buckets"] = position.replace(config=further)
            kernel = position.table.kernel[::-1]
            found["side of distances"] = position.replace(table=position.table.replace(kernel=kernel))
        case config.RelativeBias(_, distance):
            further = dataclasses.replace(position.config, distance=distance + 20)
            found["reach of buckets"] = position.replace(config=further)
        case config.Alibi(factor):
            found["slopes"] = position.replace(factor=1.1 * factor)
    found = {name: model.replace(position=wrong) for name, wrong in found.items()}
    found |= {name: model.replace(blocks=wrong) for name, wrong in of_blocks(model.blocks).items()}
    if model.head is not None and model.head.bias is not None:
        found["no bias of the head"] = model.replace(head=model.head.replace(bias=0 * model.head.bias))
    if getattr(model.config.head, "softcap", None) is not None:
        found["no cap of the head"] = model.replace(config=dataclasses.replace(model.config, head=config.Tied()))
    if getattr(model.config.head, "scale", 1.0) != 1.0:
        found["hidden states not scaled"] = model.replace(
            config=dataclasses.replace(model.config, head=config.Tied())
        )
    if model.config.embedding == config.Scaled():
        unscaled = dataclasses.replace(model.config, embedding=config.Unchanged())
        found["tokens not scaled"] = model.replace(config=unscaled)
    if isinstance(model.norm, ZeroCentered):
        found["scales from one"] = model.replace(norm=RMSNorm(model.norm.scale, config.RMSNorm()))
    if model.embedding_norm is not None:
        found["no norm of tokens"] = model.replace(embedding_norm=None)
    return found | {name: wrong for name, wrong in of_encoders(model).items() if wrong is not None}


def of_blocks(stack):
    """Stacks whose blocks are wrong in one place."""
    found, own = {}, "period" if stack.period else "shared"
    for name, change in CHANGES.items():
        layers = getattr(stack, own)
        wrong = tuple(map(change, layers))
        if any(new is not old for new, old in zip(wrong, layers, strict=True)):
            found[name] = stack.replace(**{own: wrong})
    return found


def of_encoders(model):
    """What may be wrong with an encoder's own parts, and None where it has no such part."""
    types, kind = getattr(model, "types", None), model.config
    found = {}
    if types is not None and len(types.kernel) > 1:
        found["types"] = model.replace(types=types.replace(kernel=jnp.roll(types.kernel, 1, axis=0)))
    if isinstance(kind.head, config.Transformed):
        other = "relu" if kind.head.activation != "relu" else "silu"
        head = dataclasses.replace(kind.head, activation=other)
        found["activation of the head"] = model.replace(config=dataclasses.replace(kind, head=head))
    if getattr(model, "embedding_projection", None) is not None:
        narrow = model.embedding_projection
        found["no bias of narrow tables"] = model.replace(embedding_projection=narrow.replace(bias=None))
    if model.classifier is not None:
        own = model.classifier
        found["no bias of labels"] = model.replace(classifier=own.replace(out=own.out.replace(bias=None)))
        of = "first" if own.config.of == "tokens" else "mean"
        if own.config.of != "tokens":
            wrong = dataclasses.replace(kind, classifier=dataclasses.replace(own.config, of=of))
            found["another vector of a document"] = model.replace(config=wrong)
        if own.dense is not None:
            other = "relu" if own.config.hidden != "relu" else "tanh"
            wrong = own.replace(config=dataclasses.replace(own.config, hidden=other))
            found["activation of the classifier"] = model.replace(classifier=wrong)
    return found


def recurrent(model):
    """An RWKV-4 without a norm, with shifts the other way around, or with decays and bonuses of others."""
    (layer,) = model.blocks.period
    shift, decay = layer.key_shift, layer.decay
    other = jnp.flip(decay.log_decay, -1)
    changes = {
        "shift the other way around": {"key_shift": shift.replace(mix=1 - shift.mix)},
        "decays of other features": {"decay": decay.replace(log_decay=other)},
        "no bonus": {"decay": decay.replace(bonus=jnp.zeros_like(decay.bonus))},
        "key and receptance": {"key": layer.receptance, "receptance": layer.key},
    }
    found = {
        what: model.replace(blocks=model.blocks.replace(period=(layer.replace(**change),)))
        for what, change in changes.items()
    }
    embedding_norm = model.embedding_norm.replace(scale=jnp.flip(model.embedding_norm.scale))
    return found | {"norm of tokens": model.replace(embedding_norm=embedding_norm)}


def more_experts(block):
    if not isinstance(block.mlp, Moe):
        return block
    kind = block.mlp.config
    return block.replace(mlp=block.mlp.replace(config=dataclasses.replace(kind, top_k=kind.top_k + 1)))


def without_norms(block):
    if block.attention.query_norm is None:
        return block
    return block.replace(attention=block.attention.replace(query_norm=None, key_norm=None))


def swapped_norms(block):
    query, key = block.attention.query_norm, block.attention.key_norm
    if query is None or query.scale.shape != key.scale.shape:
        return block
    return block.replace(attention=block.attention.replace(query_norm=key, key_norm=key))


def wired_otherwise(block):
    match block.wiring:
        case config.ParallelTwoNorms():
            return block.replace(wiring=config.PreNorm())
        case config.PreNorm():
            return block.replace(wiring=config.ParallelTwoNorms())
        case config.ResPostNorm() | config.Sandwich():
            return block.replace(wiring=config.PreNorm())
        case config.PostNorm():
            return block.replace(wiring=config.ResPostNorm())
        case config.Parallel():
            return block.replace(wiring=config.PreNorm(), mlp_norm=block.attention_norm)
    raise AssertionError(f"no control of {block.wiring}")


def without(name):
    def change(block):
        kind = block.attention.config
        if getattr(kind, name) is None:
            return block
        return block.replace(attention=block.attention.replace(config=dataclasses.replace(kind, **{name: None})))

    return change


def one_further(block):
    kind = block.attention.config
    if kind.window is None:
        return block
    return block.replace(
        attention=block.attention.replace(config=dataclasses.replace(kind, window=kind.window + 1))
    )


def transposed(block):
    """Heads and their features of the queries' kernel change places."""
    query = block.attention.query
    kernel = jnp.swapaxes(query.kernel, -1, -2).reshape(query.kernel.shape)
    return block.replace(attention=block.attention.replace(query=query.replace(kernel=kernel)))


def unscaled(block):
    """Scores are not divided by the root of a head's features."""
    factor, query, norm = block.attention.config.head**0.5, block.attention.query, block.attention.query_norm
    if norm is not None:
        scale = factor * (1 + norm.scale) - 1 if isinstance(norm, ZeroCentered) else factor * norm.scale
        return block.replace(attention=block.attention.replace(query_norm=norm.replace(scale=scale)))
    bias = None if query.bias is None else factor * query.bias
    query = query.replace(kernel=factor * query.kernel, bias=bias)
    return block.replace(attention=block.attention.replace(query=query))


def turned_as_the_model(block):
    kind = block.attention.config
    if kind.position == config.OfModel():
        return block
    kind = dataclasses.replace(kind, position=config.OfModel())
    return block.replace(attention=block.attention.replace(config=kind))


CHANGES = {
    "no turns of its own": turned_as_the_model,
    **{f"no {name}": without(name) for name in ("softcap", "scale")},
    "window one longer": one_further,
    "kernel transposed": transposed,
    "scores not divided": unscaled,
    "wiring": wired_otherwise,
    "top_k": more_experts,
    "no norms of queries and keys": without_norms,
    "one norm of both": swapped_norms,
}
"""What may be wrong with a block; a block without such a part is left as it is."""
