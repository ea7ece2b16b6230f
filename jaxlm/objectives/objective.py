"""What an objective is: three pure functions whose results add up over any split of the batch."""

from __future__ import annotations

from typing import Any, Literal, Protocol, runtime_checkable

from jaxtyping import Array, Float, Key

from jaxlm.layers.contracts import Batch, Call, Model

Sums = dict[str, Float[Array, ""]]


@runtime_checkable
class Writes(Protocol):
    """An objective of texts that the model writes itself."""

    def rollout(self, model: Model, batch: Batch, key: Key[Array, ""], call: Call, frozen: dict[str, Any]) -> Batch:
        """The batch to learn from, of the same shape, once on the global batch before `prepare`; no gradient."""
        ...


@runtime_checkable
class Objective(Protocol):
    """A frozen value.

    The step minimizes sum over terms of coefficient * total / weight, with totals summed over micro-batches and
    weights taken once from the global batch: gradients simply add, however the batch was cut.
    """

    couples: Literal["token", "row", "batch"]
    """What shares a loss: only "token" and "row" objectives may be split into micro-batches.

    In training a device computes the sums of its own rows and positions: a "batch" objective brings what its rows
    share together by `call.layout` (`sum`, `collect`).
    """

    @property
    def coefficients(self) -> dict[str, float]:
        """The factor of each term."""
        ...

    def prepare(self, batch: Batch, key: Key[Array, ""]) -> Batch:
        """Everything random or coupled that needs no gradient, once on the global batch: masking, whitening."""
        ...

    def weights(self, batch: Batch) -> Sums:
        """What each term's total is divided by, once on the global batch."""
        ...

    def totals(
        self, model: Model, batch: Batch, key: Key[Array, ""] | None, call: Call, frozen: dict[str, Any]
    ) -> tuple[Sums, Sums]:
        """Each term's sum over a micro-batch, and sums to report.

        `key` is the step's (None: no dropout); draw by `random.row_keys(key, batch.rows)`. `frozen` holds models
        that are not trained, by role (teacher, reference).
        """
        ...
