"""What an adapter_config.json says."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import sqrt
from pathlib import Path
from typing import Any

from jaxlm.config.errors import Failure

CONFIG, FILE = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
"""Of every tensor beside the model's."""
SHARED = ("base_model.vera_A", "base_model.vera_B")
"""VeRA's random matrices."""
KINDS = ("LORA", "VERA", "IA3")
COMMON = {
    *("auto_mapping", "base_model_name_or_path", "inference_mode", "peft_type", "peft_version", "revision"),
    *("target_modules", "modules_to_save", "task_type", "fan_in_fan_out", "exclude_modules", "bias"),
    *("layers_to_transform", "layers_pattern", "megatron_core", "init_weights", "init_ia3_weights"),
}
"""Settings that are read elsewhere here, or change nothing that is computed."""
OWN = {
    "LORA": {
        *("r", "lora_alpha", "lora_dropout", "use_rslora", "use_dora", "rank_pattern", "alpha_pattern"),
        *("init_lora_weights", "qalora_group_size", "ensure_weight_tying"),
    },
    "VERA": {"r", "vera_dropout", "d_initial", "projection_prng_key", "save_projection"},
    "IA3": {"feedforward_modules"},
}
CHANGED_BASE = ("pissa", "olora", "corda", "loftq")
"""Beginnings of ways to begin that take something out of the base: without that base the adapter is none."""


@dataclass(frozen=True)
class Settings:
    """The settings that matter here."""

    kind: str
    """LORA, DORA, VERA or IA3."""
    named: str | tuple[str, ...]
    """A regular expression of whole names, or ends of names."""
    layers: bool = False
    """Whether only some of the layers have it: then tensors say which."""
    rank: int = 0
    alpha: float = 0.0
    root: bool = False
    dropout: float = 0.0
    alphas: Mapping[str, float] = field(default_factory=dict)
    inward: str | tuple[str, ...] = ()
    initial: float = 0.1
    seed: int = 0

    def targets(self, module: str) -> bool:
        """Whether the settings name a module, where they say so exactly."""
        return not self.layers and self.named != "all-linear" and _matches(self.named, module)

    def feedforward(self, module: str) -> bool:
        """Whether (IA)^3 multiplies what a module is given."""
        return _matches(self.inward, module)

    def scale(self, module: str | None, rank: int) -> float:
        """What a module's low-rank product is multiplied by; of None, by the settings for all."""
        alpha = self.alpha
        if module is not None:
            found = (alpha for key, alpha in self.alphas.items() if re.match(rf"(.*\.)?({key})$", module))
            alpha = next(found, alpha)
        return alpha / (sqrt(rank) if self.root else rank)


def _matches(named: str | tuple[str, ...], module: str) -> bool:
    if isinstance(named, str):
        return re.fullmatch(named, module) is not None
    return any(module == one or module.endswith(f".{one}") for one in named)


def read(directory: Path) -> Settings:
    """The settings of a directory. Raises Failure for what is missing, damaged or not known here."""
    path = directory / CONFIG
    if not path.is_file():
        raise Failure(f"{directory} has no {CONFIG}: an adapter is a directory with one and {FILE}")
    try:
        told = json.loads(path.read_text())
    except ValueError:
        told = None
    if not isinstance(told, dict):
        raise Failure(f"{path} is damaged: it is no JSON object")
    kind = told.get("peft_type")
    if kind not in KINDS:
        raise Failure(f"{path}: peft_type is {kind!r}, and only {', '.join(KINDS)} are known here")
    _check(path, kind, told)
    try:
        return _settings(kind, told)
    except (KeyError, TypeError, ValueError) as error:
        raise Failure(f"{path}: a setting is missing or of another type: {error}") from None


def _check(path: Path, kind: str, told: Mapping[str, Any]) -> None:
    """Raises Failure for a setting that would change what is computed, and is not known here."""
    known = COMMON | OWN[kind]
    for name, value in told.items():
        if name not in known and value not in (None, False, "", [], {}):
            raise Failure(f"{path}: {name} is {value!r}, which is not known here")
    if told.get("bias", "none") != "none":
        raise Failure(f"{path}: bias is {told['bias']!r}: trained biases are not read beside an adapter")
    begun = told.get("init_lora_weights", True)
    if isinstance(begun, str) and begun.startswith(CHANGED_BASE):
        raise Failure(
            f"{path}: init_lora_weights is {begun!r}, which changes the base: have PEFT convert it to LoRA "
            "(path_initial_model_for_weight_conversion)"
        )


def _settings(kind: str, told: Mapping[str, Any]) -> Settings:
    named = told["target_modules"]
    common = {
        "named": named if isinstance(named, str) else tuple(named),
        "layers": told.get("layers_to_transform") is not None or bool(told.get("exclude_modules")),
    }
    match kind:
        case "LORA":
            own = {"rank": int(told["r"]), "alpha": float(told["lora_alpha"]), "root": bool(told.get("use_rslora"))}
            own |= {"dropout": float(told.get("lora_dropout", 0.0)), "alphas": told.get("alpha_pattern") or {}}
            return Settings("DORA" if told.get("use_dora") else "LORA", **common, **own)
        case "VERA":
            own = {"rank": int(told["r"]), "dropout": float(told.get("vera_dropout", 0.0))}
            own |= {"initial": float(told.get("d_initial", 0.1)), "seed": int(told.get("projection_prng_key", 0))}
            return Settings(kind, **common, **own)
        case _:
            inward = told.get("feedforward_modules") or ()
            return Settings(kind, **common, inward=inward if isinstance(inward, str) else tuple(inward))
