"""Adapters as PEFT keeps them: adapter_config.json and adapter_model.safetensors, read onto a model and written.

LoRA, rsLoRA, DoRA, VeRA and (IA)^3, of every family whose models are exchanged (`jaxlm.families`).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from math import sqrt
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm import config as kinds
from jaxlm.adapters.attach import attached
from jaxlm.adapters.build import adapted
from jaxlm.config.adapter import Adapter
from jaxlm.config.model import Model as Config
from jaxlm.families.known import published
from jaxlm.interop import peft_settings, safetensors
from jaxlm.interop.modules import Array, Module, linear
from jaxlm.interop.peft_file import File, Leaves
from jaxlm.interop.peft_settings import FILE
from jaxlm.layers.names import flatten
from jaxlm.layers.weights import weights_of

Tree = TypeVar("Tree")


def read(directory: Path, config: Config, model: Tree, model_type: str = "") -> tuple[Adapter, Tree]:
    """(the adapter's config, the model with it) of a directory that PEFT wrote for such a model.

    Layers that it does not touch get an adapter that changes nothing, and smaller ranks are filled with zeros: the
    layers of a stack have one shape. The family is that of the `model_type`, or the first that has such a model.

    Raises Failure for a kind of adapter, a setting or a tensor that is not known, missing or of another shape.
    """
    settings = peft_settings.read(directory)
    tensors = safetensors.Tensors(directory, FILE)
    family, _ = published(config, 1, model_type)
    modules, held = linear(family, config)
    file = File(directory, tensors, settings, modules, held, family.OMITTED)
    found = file.modules_of()
    build = {"LORA": _lora, "DORA": _lora, "VERA": _vera, "IA3": _ia3}[settings.kind]
    adapter, leaves = build(file, found, model)
    whole = file.whole_leaves(model)
    if whole:
        adapter = dataclasses.replace(adapter, also=_pattern(whole))
    template = flatten(jax.eval_shape(lambda: adapted(model, adapter, jax.random.key(0))))
    leaves = {name: jnp.asarray(leaf, template[name].dtype) for name, leaf in (leaves | whole).items()}
    made = attached(model, adapter, leaves)
    return adapter, file.with_shared(made, found) if settings.kind == "VERA" else made


def _gather(
    model: Any, parts: dict[str, dict[tuple[int, ...], dict[str, Array]]], empty: Callable[[str], dict[str, Array]]
) -> Leaves:
    """Each weight's leaves, stacked as the weight is; `empty(weight)` for layers that have none."""
    weights, leaves = weights_of(model), {}
    for name, places in parts.items():
        stacked = jax.eval_shape(weights[name].dense).shape[: -len(weights[name].axes)]
        if not stacked:
            (only,) = places.values()
            leaves |= {f"{name}.{word}": leaf for word, leaf in only.items()}
            continue
        neutral = empty(name)
        nothing = [{word: leaf[place] for word, leaf in neutral.items()} for place in range(stacked[0])]
        rows = [places.get((place,), nothing[place]) for place in range(stacked[0])]
        leaves |= {f"{name}.{word}": np.stack([row[word] for row in rows]) for word in rows[0]}
    return leaves


def _neutral(model: Any, adapter: Adapter) -> Callable[[str], dict[str, Array]]:
    """Of a weight the leaves of an adapter that changes nothing."""
    made = weights_of(adapted(model, adapter, jax.random.key(0)))

    def empty(name: str) -> dict[str, Array]:
        weight = made[name].neutral()
        own = {word: getattr(weight, word) for word in weight.leaf_axes()}
        return {word: np.asarray(leaf) for word, leaf in own.items() if leaf is not None}

    return empty


def _pattern(names: Any) -> str:
    return "^(" + "|".join(map(re.escape, sorted(names))) + ")$"


def _lora(file: File, found: dict[str, dict[str, str]], model: Any) -> tuple[Adapter, Leaves]:
    settings, parts = file.settings, {}
    ranks = {name: file.tensors.shapes[tensors["lora_A.weight"]][0] for name, tensors in found.items()}
    rank, scale = max(ranks.values()), settings.scale(None, settings.rank)
    for name, tensors in found.items():
        module, own = file.modules[name], ranks[name]
        a = file.matrix(tensors["lora_A.weight"], (own, module.features(0)))
        b = file.matrix(tensors["lora_B.weight"], (module.features(1), own))
        if (here := settings.scale(name, own)) != scale:
            b = b * np.float32(here / scale)
        a, b = np.pad(a, ((0, rank - own), (0, 0))), np.pad(b, ((0, 0), (0, rank - own)))
        pieces = {"a": module.ours(0, a, rank), "b": module.ours(1, b, rank)}
        if settings.kind == "DORA":
            magnitude = file.matrix(tensors["lora_magnitude_vector"], (module.features(1),))
            pieces["magnitude"] = module.ours(1, magnitude)
        _keep(parts, module, pieces)
    kind = kinds.Dora if settings.kind == "DORA" else kinds.Lora
    scaling = "root" if settings.root else "rank"
    alpha = settings.alpha if rank == settings.rank else scale * (sqrt(rank) if settings.root else rank)
    adapter = kind(rank, alpha, scaling, settings.dropout, _pattern(parts), also="")
    return adapter, _gather(model, parts, _neutral(model, adapter))


def _vera(file: File, found: dict[str, dict[str, str]], model: Any) -> tuple[Adapter, Leaves]:
    parts, rank = {}, file.settings.rank
    for name, tensors in found.items():
        module = file.modules[name]
        outer = module.ours(1, file.matrix(tensors["vera_lambda_b"], (module.features(1),)))
        inner = [file.matrix(tensors["vera_lambda_d"], (rank,))] * len(module.weights)
        _keep(parts, module, {"inner": inner, "outer": outer})
    settings = file.settings
    adapter = kinds.Vera(rank, settings.initial, settings.seed, settings.dropout, _pattern(parts), also="")
    return adapter, _gather(model, parts, _neutral(model, adapter))


def _ia3(file: File, found: dict[str, dict[str, str]], model: Any) -> tuple[Adapter, Leaves]:
    parts, inward = {}, set()
    for name, tensors in found.items():
        module = file.modules[name]
        side = 0 if file.settings.feedforward(name) else 1
        shape = (1, module.features(0)) if side == 0 else (module.features(1), 1)
        factor = module.ours(side, file.matrix(tensors["ia3_l"], shape).reshape(-1))
        _keep(parts, module, {"factor": factor})
        inward |= {weight for weight, _ in module.weights} if side == 0 else set()
    outward = parts.keys() - inward
    adapter = kinds.Ia3(_pattern(outward) if outward else "", _pattern(inward) if inward else "", also="")
    return adapter, _gather(model, parts, _neutral(model, adapter))


def _keep(parts: dict, module: Module, pieces: dict[str, list[Array]]) -> None:
    """A module's pieces under the weight and the place that each belongs to."""
    for number, (weight, at) in enumerate(module.weights):
        parts.setdefault(weight, {})[at] = {word: each[number] for word, each in pieces.items()}
