"""How text is drawn from a model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from jaxlm.config.experiment import Experiment
from jaxlm.config.model import Decoder
from jaxlm.config.objective import PrefixLm, on_labels


@dataclass(frozen=True)
class Options:
    """One request for text; the fields' defaults draw from the model's own distribution."""

    tokens: int = 100
    """Most tokens to draw."""
    temperature: float = 1.0
    """Divides the logits; 0 takes the likeliest token."""
    top_k: int = 0
    """Keep the k likeliest tokens; 0 keeps all."""
    top_p: float = 1.0
    """Keep the fewest tokens that hold this much probability (arXiv:1904.09751); 1 keeps all."""
    min_p: float = 0.0
    """Keep tokens at least this probable relative to the likeliest (arXiv:2407.01082); 0 keeps all."""
    seed: int = 0
    samples: int = 1
    """Texts for each prompt; those of one prompt differ, and do not depend on how many there are."""
    reading: Literal["trained", "causal", "prefix"] = "trained"
    """How a decoder sees a prompt: as it was trained (from left to right where that is not known), from left to
    right, or from both sides.
    """


def as_trained(options: Options, experiment: Experiment) -> Options:
    """The options for a model of this experiment: prompts from both sides after `PrefixLm` of a decoder."""
    if options.reading != "trained":
        return options
    both = isinstance(on_labels(experiment.objective), PrefixLm) and isinstance(experiment.model, Decoder)
    return replace(options, reading="prefix" if both else "causal")
