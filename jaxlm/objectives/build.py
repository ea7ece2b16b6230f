"""From a config to an objective."""

from __future__ import annotations

import importlib

from jaxlm import config
from jaxlm.config.errors import UsageError
from jaxlm.objectives.autoregressive import Autoregressive
from jaxlm.objectives.objective import Objective


def build(objective: config.Autoregressive | config.Custom) -> Objective:
    """The objective that a config names. Raises UsageError when a custom one cannot be imported."""
    match objective:
        case config.Autoregressive(z_loss, chunks):
            return Autoregressive(z_loss, chunks)
        case config.Custom(path):
            module, _, name = path.partition(":")
            try:
                return getattr(importlib.import_module(module), name)
            except (ImportError, AttributeError, ValueError) as error:
                raise UsageError(f"objective.path={path!r}: {error}; give package.module:name") from error
