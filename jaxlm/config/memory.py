"""Closed forms of what a training step needs of a device: memory, and bytes over the network."""

from __future__ import annotations

import dataclasses
from collections import Counter
from math import prod

from jaxlm.config.block import Block, Gated, Parallel, ParallelTwoNorms, Plain
from jaxlm.config.errors import UsageError
from jaxlm.config.experiment import Experiment
from jaxlm.config.flops import every_block, experts, hidden, of_generator, own_blocks, parameters, staged
from jaxlm.config.head import NoHead, Tied, Transformed
from jaxlm.config.model import EncoderDecoder, generating
from jaxlm.config.objective import scores_tokens
from jaxlm.config.optimizer import Adafactor, AdamW, Lion, Muon
from jaxlm.config.precision import PRECISIONS
from jaxlm.config.recurrent import Recurrent, Rwkv4, Rwkv5, Rwkv6, Rwkv7
from jaxlm.config.remat import kept

OUTSIDE = ("embedding", "embedding projection", "positions", "types", "head", "classifier")
"""Components that are no layers'."""
BYTES = {"float32": 4, "bfloat16": 2}


def shape_of_mesh(experiment: Experiment, devices: int) -> dict[str, int]:
    """Devices along each axis with `data` resolved.

    Raises UsageError if they do not multiply to `devices`.
    """
    sizes = dataclasses.asdict(experiment.where.mesh)
    inner = prod(size for axis, size in sizes.items() if axis != "data")
    data = sizes["data"] or devices // inner
    if data * inner != devices:
        shape = " x ".join(f"{axis} {size}" for axis, size in sizes.items() if axis != "data" and size > 1)
        raise UsageError(f"where.mesh: data {sizes['data'] or 'what is left'} x {shape} is not {devices} devices")
    return sizes | {"data": data}


def bytes_per_device(experiment: Experiment, devices: int) -> dict[str, int]:
    """Bytes a device needs for a training step by cause, and their `total`.

    Parameters and what has their shape are spread over fsdp, context and tensor, layers over pipeline, experts
    over expert; rows over replica, data, fsdp, expert and pipeline, positions over context, positions or features
    over tensor. A stage keeps as much when it idles as when it works, and holds the stream of all rows that stages
    share twice. Activations and logits are estimates: kernels' scratch and the compiler's choices are not modelled.
    """
    mesh = shape_of_mesh(experiment, devices)
    p = PRECISIONS[experiment.precision]
    count = parameters(experiment.model)["total"]
    shards = mesh["fsdp"] * mesh["context"] * mesh["tensor"]
    model = experiment.model
    # What counts on a device: of the experts only its own, of the layers those of its stage.
    stages, flow = mesh["pipeline"], experiment.where.pipeline
    own = staged(model) - experts(model) + experts(model) // mesh["expert"]
    count += own // stages - staged(model)
    moment = count * BYTES[p.optimizer]
    outside = Counter(parameters(model)) + Counter(of_generator(model))
    vectors = sum(outside.get(one, 0) for one in (*OUTSIDE, "norms"))
    match experiment.optimizer:
        case AdamW():
            state = moment + count * 4
        case Lion():
            state = moment
        case Muon():
            state = moment + vectors * 4  # second moments of the AdamW part only
        case Adafactor():
            state = 4 * 2 * count // model.embed  # a row and a column for each matrix
    row_shards = mesh["replica"] * mesh["data"] * mesh["fsdp"] * mesh["expert"] * stages
    rows = -(-experiment.train.batch // (experiment.where.micro_batches * row_shards))
    tokens = rows * experiment.train.length // mesh["context"]
    chunks = getattr(experiment.objective, "chunks", 1)
    work = flow.rounds * flow.flight(stages)
    saved = _saved(experiment) * (work + stages - 1) // work if stages > 1 else _saved(experiment)
    stream = 2 * stages * model.embed if stages > 1 else 0
    found = {
        "parameters": count * BYTES[p.parameters] // shards,
        "gradients": count * BYTES[p.accumulation] // shards,
        "optimizer": state // shards,
        "average": count * 4 // shards if experiment.train.ema is not None else 0,
        "activations": tokens * (saved + stream) // mesh["tensor"] * BYTES[p.compute],
        "logits": 0
        if isinstance((generating(model) or model).head, NoHead) or not scores_tokens(experiment.objective)
        else 2 * tokens * model.vocab * BYTES[p.logits] // (chunks * mesh["tensor"]),
    }
    return found | {"total": sum(found.values())}


def gathered_bytes(experiment: Experiment, devices: int) -> float:
    """Bytes that a device sends in a step to gather parameters over fsdp and context, in the compute format.

    Matrices of the layers are gathered forward and again backward, the embedding and the head forward only, all of
    it for each micro-batch; vectors are stored whole. Their gradients are reduce-scattered, once each: half of the
    layers' bytes and as much as the others'.
    """
    mesh, model = shape_of_mesh(experiment, devices), experiment.model
    shards = mesh["fsdp"] * mesh["context"]
    found = parameters(model)
    layers = sum(found.get(name, 0) for name in ("attention", "mlp", "time mix", "channel mix"))
    layers -= experts(model) - experts(model) // mesh["expert"]
    if not isinstance(model, Recurrent):
        layers *= len(every_block(model)) // max(
            len(own_blocks(model)), 1
        )  # what layers share is gathered for each
    ends = sum(found.get(name, 0) for name in OUTSIDE)
    if isinstance(model.head, Tied | Transformed):
        ends += found["embedding"]
    width = BYTES[PRECISIONS[experiment.precision].compute]
    whole = width * (2 * layers + ends) / mesh["tensor"]
    sent, generator = experiment.where.micro_batches * whole * (shards - 1) / shards, generating(model)
    return sent + (gathered_bytes(dataclasses.replace(experiment, model=generator), devices) if generator else 0)


def _saved(experiment: Experiment) -> int:
    """Numbers a token leaves behind for the backward pass, over all layers."""
    model, remat = experiment.model, experiment.where.remat
    e = model.embed
    if isinstance(model, Recurrent):
        inputs = {Rwkv4: 14, Rwkv5: 20, Rwkv6: 28, Rwkv7: 34}[type(model)]
        each = {"none": inputs * e + 3 * model.width, "dots": 6 * e + model.width}
        return model.layers * each.get(remat, e)
    attentions = 1.5 if isinstance(model, EncoderDecoder) else 1
    total = 0.0
    for one in every_block(model):
        a = one.attention
        into, width = hidden(one.mlp, e)
        qkv = (a.heads + 2 * a.kv_heads) * a.head
        products = attentions * (qkv + e) + e + into
        scores = a.heads * experiment.train.length
        every = products + 4 * e + attentions * (a.heads * a.head + scores) + width
        total += {"none": every, "dots": products}.get(remat, e + _named(one, e, remat))
    if generator := generating(model):
        total += _saved(dataclasses.replace(experiment, model=generator))
    return round(total)


def _named(block: Block, embed: int, remat: str) -> int:
    """Numbers a token leaves behind in one block under names; those in host memory are not counted."""
    a, m = block.attention, block.mlp
    wide, narrow = a.heads * a.head, a.kv_heads * a.head
    middle = 0 if isinstance(block.wiring, Parallel | ParallelTwoNorms) else embed
    sizes = {"query": wide, "key": narrow, "value": narrow, "attention": wide, "middle": middle}
    match m:
        case Gated():
            sizes |= {"gate": m.width, "up": m.width}
        case Plain():
            sizes |= {"up": m.width}
    return sum(sizes.get(name, 0) for name in kept(remat)[0])
