"""Adapters as PEFT reads them: see `jaxlm.interop.peft`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from math import prod, sqrt
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxlm import config as kinds
from jaxlm.adapters.build import trained
from jaxlm.adapters.lora import LoRA
from jaxlm.adapters.over import Over
from jaxlm.adapters.vera import VeRA
from jaxlm.config.adapter import Adapter
from jaxlm.config.errors import UsageError
from jaxlm.config.model import Model as Config
from jaxlm.config.paths import option_name
from jaxlm.families.known import published
from jaxlm.interop import rearrange, safetensors
from jaxlm.interop.modules import Array, Module, linear
from jaxlm.interop.peft_settings import CONFIG, FILE, PREFIX, SHARED
from jaxlm.layers.names import flatten, partition
from jaxlm.layers.weights import weights_of

Tensors = dict[str, Array]


def write(
    directory: Path,
    config: Config,
    model: Any,
    adapter: Adapter,
    *,
    length: int,
    model_type: str = "",
    base: str = "",
) -> tuple[str, ...]:
    """Writes a model's adapters, and what is trained beside them, and returns the modules that have any.

    `length` is the longest row that the model is meant for, `base` what PEFT shall call it (a path or a name). Of a
    module that holds several of our weights, low-rank matrices become one of the sum of their ranks; where all have
    the same A, as those have that were read from such a module, they stay one. Raises UsageError for a model of no
    known family, an adapter that PEFT's layout has no room for, and a directory that is there already.
    """
    family, settings = published(config, length, model_type)
    if not isinstance(adapter, kinds.Lora | kinds.Dora | kinds.Vera | kinds.Ia3):
        raise UsageError(f"{option_name(type(adapter))}: PEFT's files are written of lora, dora, vera and ia3")
    safetensors.refuse_existing(directory)
    # A model without a head is its own whole: names begin within it.
    bare = re.fullmatch(r"\w+(?<!LMHead)Model", settings["architectures"][0]) is not None
    drop = family.OMITTED if bare else ""
    modules, held = linear(family, config)
    modules = {name.removeprefix(drop): one for name, one in modules.items()}
    weights = {name: weight for name, weight in weights_of(model).items() if isinstance(weight, Over)}
    chosen = {name: one for name, one in modules.items() if any(weight in weights for weight, _ in one.weights)}
    _check(weights, chosen, settings["model_type"])
    match adapter:
        case kinds.Vera():
            tensors, told = _vera(chosen, weights, adapter)
        case kinds.Ia3():
            tensors, told = _ia3(chosen, weights, modules)
        case _:
            tensors, told = _lora(chosen, weights, adapter)
    whole, saved = _whole(model, adapter, held)
    told |= {
        "base_model_name_or_path": base or None,
        "target_modules": _ends(chosen, modules),
        "modules_to_save": saved or None,
        "fan_in_fan_out": any(one.transposed for one in chosen.values()),
        "inference_mode": True,
        "task_type": None,
    }

    def named() -> Iterator[tuple[str, Array]]:
        for name, tensor in (tensors | whole).items():
            yield name if name in SHARED else PREFIX + name.removeprefix(drop), np.ascontiguousarray(tensor)

    safetensors.write(directory, named(), {CONFIG: (json.dumps(told, indent=2) + "\n").encode()}, FILE)
    return tuple(chosen)


def _check(weights: Mapping[str, Any], chosen: Mapping[str, Module], model_type: str) -> None:
    """Raises UsageError for weights that no module holds, adapters over others, and where there are none."""
    reached = {weight for one in chosen.values() for weight, _ in one.weights}
    if lost := sorted(weights.keys() - reached):
        raise UsageError(f"{lost[0]} is no linear module of {model_type}: PEFT's files have no room")
    if deeper := [name for name, weight in weights.items() if isinstance(weight.base, Over)]:
        raise UsageError(f"{deeper[0]} has an adapter over another one: merge the lower one first")
    if not chosen:
        raise UsageError("this model has no adapters to write: see `jaxlm.adapters.build.adapted`")


def _at(weight: Any, word: str, at: tuple[int, ...]) -> Array:
    """One layer's leaf in float32."""
    return np.asarray(getattr(weight, word)[at]).astype(np.float32)


def _lora(chosen: Mapping[str, Module], weights: Mapping[str, Any], adapter: Any) -> tuple[Tensors, dict[str, Any]]:
    tensors, sizes, root = {}, {}, adapter.scaling == "root"
    for name, module in chosen.items():
        a, b, scale = _pair(module, weights)
        rank = a.shape[0]
        sizes[name] = rank, scale * (sqrt(rank) if root else rank)
        tensors |= {f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b}
        if isinstance(adapter, kinds.Dora):
            lengths = [_magnitude(weights, one) for one in module.weights]
            tensors[f"{name}.lora_magnitude_vector"] = module.theirs(1, lengths)
    usual = max(sorted(set(sizes.values())), key=list(sizes.values()).count)
    other = {name: size for name, size in sizes.items() if size != usual}
    told = {"peft_type": "LORA", "r": usual[0], "lora_alpha": usual[1], "lora_dropout": adapter.dropout}
    told |= {"use_rslora": root, "use_dora": isinstance(adapter, kinds.Dora), "bias": "none"}
    told |= {
        "rank_pattern": {re.escape(name): rank for name, (rank, _) in other.items()},
        "alpha_pattern": {re.escape(name): alpha for name, (_, alpha) in other.items()},
    }
    return tensors, told


def _magnitude(weights: Mapping[str, Any], leaf: tuple[str, tuple[int, ...]]) -> Array:
    name, at = leaf
    if name not in weights:
        raise UsageError(f"{name} has no adapter, and shares a module with weights that do: give it one too")
    return _at(weights[name], "magnitude", at)


def _pair(module: Module, weights: Mapping[str, Any]) -> tuple[Array, Array, float]:
    """Their A and B of a module, and what their product is multiplied by."""
    first: LoRA = next(weights[name] for name, _ in module.weights if name in weights)
    pieces: list[tuple[Array, Array] | None] = []
    for name, at in module.weights:
        if (weight := weights.get(name)) is None:
            pieces.append(None)
            continue
        rank = weight.b.shape[-(len(weight.axes) - weight.inputs) - 1]
        a = module.theirs(0, [_at(weight, "a", at)], rank)
        pieces.append((a, _at(weight, "b", at) * np.float32(weight.scale / first.scale)))
    own = [piece for piece in pieces if piece is not None]
    if len(own) == len(pieces) and all(np.array_equal(a, own[0][0]) for a, _ in own):
        a, b = own[0][0], [b for _, b in own]
        return a, module.theirs(1, b, a.shape[0]), first.scale
    total, begin, wide = sum(a.shape[0] for a, _ in own), 0, []
    for piece, size in zip(pieces, module.sizes(1), strict=True):
        b = np.zeros((total, *size), np.float32)
        if piece is not None:
            b[begin : begin + piece[1].shape[0]] = piece[1]
            begin += piece[1].shape[0]
        wide.append(b)
    return np.concatenate([a for a, _ in own]), module.theirs(1, wide, total), first.scale


def _ia3(
    chosen: Mapping[str, Module], weights: Mapping[str, Any], modules: Mapping[str, Module]
) -> tuple[Tensors, dict[str, Any]]:
    tensors, inward = {}, {}
    for name, module in chosen.items():
        own = [weights.get(weight) for weight, _ in module.weights]
        factors = [
            np.ones(size, np.float32) if weight is None else _at(weight, "factor", at)
            for weight, (_, at), size in zip(own, module.weights, module.sizes(1), strict=True)
        ]
        if any(weight is not None and weight.of == "inputs" for weight in own):
            if len(own) > 1:
                raise UsageError(f"{name} holds several of our weights, whose inputs PEFT cannot tell apart")
            inward[name] = module
            tensors[f"{name}.ia3_l"] = module.theirs(0, factors)[None]
        else:
            tensors[f"{name}.ia3_l"] = module.theirs(1, factors)[:, None]
    return tensors, {"peft_type": "IA3", "feedforward_modules": _ends(inward, modules)}


def _vera(chosen: Mapping[str, Module], weights: Mapping[str, Any], adapter: Any) -> tuple[Tensors, dict[str, Any]]:
    tensors, rank = {}, adapter.rank
    most = [max(module.features(side) for module in chosen.values()) for side in (0, 1)]
    shared = [np.full((rank, most[0]), np.nan, np.float32), np.full((most[1], rank), np.nan, np.float32)]
    for name, module in chosen.items():
        for weight, _ in module.weights:
            if weight not in weights:
                raise UsageError(f"{weight} has no adapter, and shares a module with weights that do")
        own = [weights[weight] for weight, _ in module.weights]
        inner = [_at(weight, "inner", at) for weight, (_, at) in zip(own, module.weights, strict=True)]
        parts = [_matrices(weight, at, module, n) for n, (weight, (_, at)) in enumerate(zip(own, module.weights))]
        a = [module.theirs(0, [one], rank) for one, _ in parts]
        b = module.theirs(1, [two for _, two in parts], rank)
        same = [np.array_equal(one, inner[0]) for one in inner] + [np.array_equal(one, a[0]) for one in a]
        if not all(same) or not (_lay(shared[0][:, : a[0].shape[1]], a[0]) and _lay(shared[1][: len(b)], b)):
            raise UsageError(
                f"{name}: VeRA's matrices of all modules are parts of one in PEFT, which these are not: fused or "
                "rearranged weights cannot be written; use lora"
            )
        outer = [_at(weight, "outer", at) for weight, (_, at) in zip(own, module.weights, strict=True)]
        tensors |= {f"{name}.vera_lambda_b": module.theirs(1, outer), f"{name}.vera_lambda_d": inner[0]}
    tensors |= dict(zip(SHARED, map(np.nan_to_num, shared), strict=True))
    told = {"peft_type": "VERA", "r": rank, "vera_dropout": adapter.dropout, "d_initial": adapter.initial}
    return tensors, told | {"projection_prng_key": adapter.seed, "save_projection": True, "bias": "none"}


def _matrices(weight: VeRA, at: tuple[int, ...], module: Module, number: int) -> tuple[Array, Array]:
    inputs, outputs = module.sizes(0)[number], module.sizes(1)[number]
    a, b = jax.device_get((weight.shared.a(prod(inputs)), weight.shared.b(prod(outputs))))
    a, b = (x[at] if x.ndim > 2 else x for x in (a, b))
    return a.reshape(*inputs, -1), b.reshape(-1, *outputs)


def _lay(place: Array, part: Array) -> bool:
    """Writes a part where nothing is yet; whether it agrees with what was there."""
    empty = np.isnan(place)
    place[empty] = part[empty]
    return np.array_equal(place, part)


def _whole(model: Any, adapter: Adapter, held: Mapping[str, Any]) -> tuple[Tensors, list[str]]:
    """What is trained beside adapters, and the names of its modules. Raises UsageError for a layer's."""
    names = flatten(partition(model, trained(adapter))[0])
    over = {name: weight for name, weight in weights_of(model).items() if isinstance(weight, Over)}
    own = {f"{name}.{word}" for name, weight in over.items() for word in weight.leaf_axes()}
    rest = {name: leaf for name, leaf in names.items() if name not in own}
    of = {one.leaves[0]: one for one in held.values() if len(one.leaves) == 1}
    tensors = {}
    for name, leaf in rest.items():
        if (name, ()) not in of:
            raise UsageError(f"{name} is trained beside the adapter, and PEFT's files have no room for it")
        one = of[name, ()]
        tensors[one.name] = rearrange.to_theirs(one.entry, [np.asarray(leaf).astype(np.float32)])
    return tensors, sorted({name.rsplit(".", 1)[0] for name in tensors})


def _ends(chosen: Mapping[str, Module], modules: Mapping[str, Module]) -> list[str]:
    """The shortest ends of names that all chosen modules have, and no others; names in full where none are."""
    found = set()
    for name in chosen:
        words = name.split(".")
        ends = (".".join(words[-count:]) for count in range(1, len(words) + 1))
        fits = (end for end in ends if all(n in chosen for n in modules if n == end or n.endswith(f".{end}")))
        found.add(next(fits, name))
    return sorted(found)
