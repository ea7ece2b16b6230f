"""From a config to an objective."""

from __future__ import annotations

import importlib

from jaxlm import config
from jaxlm.config.errors import UsageError
from jaxlm.config.model import Model
from jaxlm.objectives.autoregressive import Autoregressive
from jaxlm.objectives.auxiliary import auxiliary
from jaxlm.objectives.objective import Objective


def build(objective: config.Autoregressive | config.Custom, model: Model) -> Objective:
    """The objective that a config names, with the terms that the model's layers add to it.

    A custom one is taken as it is: what a mixture of experts returns in `Output.terms` is its own to use.
    Raises UsageError when it cannot be imported.
    """
    match objective:
        case config.Autoregressive(z_loss, chunks):
            return Autoregressive(z_loss, chunks, auxiliary(model))
        case config.Custom(path):
            module, _, name = path.partition(":")
            try:
                return getattr(importlib.import_module(module), name)
            except (ImportError, AttributeError, ValueError) as error:
                raise UsageError(f"objective.path={path!r}: {error}; give package.module:name") from error
