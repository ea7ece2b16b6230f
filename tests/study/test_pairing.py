"""What arms of a seed have in common: the initial parameters that they share."""

import functools

import jax
import numpy as np

from jaxlm import config
from jaxlm.config.overrides import apply
from jaxlm.layers.names import flatten
from jaxlm.models import build
from tests.train.tiny import experiment


@functools.cache
def initial(position: str, seed: int) -> dict[str, np.ndarray]:
    words = [f"model.position:{position}", *(["--model.position.length=32"] if position == "learned" else [])]
    model: config.Decoder = apply(experiment(), words).model
    return {name: np.asarray(leaf) for name, leaf in flatten(build(model, jax.random.key(seed))).items()}


def test_a_seed_draws_the_same_parameters_for_every_arm():
    rope, learned, other = initial("rope", 3), initial("learned", 3), initial("rope", 4)
    assert learned.keys() > rope.keys()
    for name, leaf in rope.items():
        np.testing.assert_array_equal(leaf, learned[name], err_msg=name)
    drawn = [name for name, leaf in rope.items() if leaf.std() > 0]
    assert drawn
    assert not any((rope[name] == other[name]).all() for name in drawn)
