"""A student beside what is trained with it and thrown away after."""

from __future__ import annotations

from typing import Any

from flax import struct
from jaxtyping import Array, Float, Key

from jaxlm import config
from jaxlm.config import Precision
from jaxlm.config.distillation import projects
from jaxlm.layers.cache import Cache
from jaxlm.layers.contracts import Call, Memory, Model, Output, RowKeys, Tokens
from jaxlm.layers.initial import Initial
from jaxlm.layers.projection import Weight
from jaxlm.models.heads import Scorer


@struct.dataclass
class Student:
    """A model like the one inside of it, which is what is kept; each feature's projection is trained beside it."""

    model: Model
    projections: tuple[Weight | None, ...]
    """For each feature what brings the student's width to the teacher's, [embed, embed], where it asks for it."""

    @property
    def config(self) -> Any:
        """The model's."""
        return self.model.config

    def __call__(
        self,
        inputs: Tokens,
        call: Call,
        *,
        memory: Memory | None = None,
        cache: Cache | None = None,
        key: RowKeys | None = None,
    ) -> Output:
        """The model's; projections are of the losses alone."""
        return self.model(inputs, call, memory=memory, cache=cache, key=key)

    def encode(self, source: Tokens, call: Call, *, key: RowKeys | None = None) -> Memory:
        """The model's."""
        return self.model.encode(source, call, key=key)

    def scorer(self, call: Call) -> Scorer:
        """The model's."""
        return self.model.scorer(call)

    def logits(self, hidden: Float[Array, "... embed"], call: Call) -> Float[Array, "... vocab"]:
        """The model's."""
        return self.model.logits(hidden, call)

    def classify(self, features: Float[Array, "... embed"], call: Call) -> Float[Array, "... labels"]:
        """The model's."""
        return self.model.classify(features, call)

    def empty_cache(self, rows: int, length: int, call: Call) -> Cache:
        """The model's."""
        return self.model.empty_cache(rows, length, call)


def student(
    model: Model,
    objective: config.Distillation,
    teacher: int,
    key: Key[Array, ""],
    precision: Precision = Precision(),
) -> Model:
    """The model that an objective trains, of a teacher with `teacher` features: itself, or a `Student`.

    Pure, so that `jax.eval_shape` takes it. Projections begin with variance 1 / the student's features.
    """
    if not any(projects(feature) for feature in objective.features):
        return model
    init = Initial(key, precision.parameters).at("projections")
    shape, axes = (model.config.embed, teacher), ("embed", "embed")
    return Student(
        model,
        tuple(
            init.dense(str(place), shape, axes) if projects(feature) else None
            for place, feature in enumerate(objective.features)
        ),
    )


def kept(model: Model) -> Model:
    """The model without what was trained beside it."""
    return model.model if isinstance(model, Student) else model
