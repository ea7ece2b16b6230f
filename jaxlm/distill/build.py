"""From a config to an objective, with or without a teacher."""

from __future__ import annotations

from collections.abc import Callable

from jaxlm import config
from jaxlm.config.model import Model
from jaxlm.config.objective import Objective as Config
from jaxlm.config.special import Special
from jaxlm.distill.objective import Distillation
from jaxlm.objectives import build as objectives
from jaxlm.objectives.objective import Objective


def build(objective: Config, model: Model, special: Callable[[], Special] = objectives.no_tokenizer) -> Objective:
    """The objective that a config names, as `objectives.build.build`, which knows of no teachers."""
    match objective:
        case config.Distillation(base, response, labels, weight, at, features, policy, likeliest):
            stop = None if isinstance(policy, config.OffPolicy) else special().eos
            own = objectives.build(base, model, special)
            return Distillation(own, response, labels, weight, at, features, policy, stop, likeliest)
        case _:
            return objectives.build(objective, model, special)
