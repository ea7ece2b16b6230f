"""Masks for masked language models (Devlin et al. 2018, arXiv:1810.04805, section 3.1 and appendix A.1)."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from jaxlm import config
from jaxlm.config.special import Special
from jaxlm.layers import random
from jaxlm.layers.contracts import Batch


@dataclass(frozen=True)
class Masking:
    """Hides tokens, of which the targets are the tokens themselves.

    Whether a token is hidden depends on (key, its document, its place there), in whichever row it stands.
    """

    kind: config.MaskedLm
    mask: int
    special: tuple[int, ...]
    """Tokens that are never hidden and never stand for others, in order."""
    vocab: int
    """Tokens of the tokenizer."""

    def __call__(self, batch: Batch, key: Key[Array, ""]) -> Batch:
        """The batch with hidden tokens; all others have weight 0."""
        ids, documents, places = batch.inputs.ids, batch.documents, batch.inputs.positions
        if self.kind.copies:  # as many masks as there are ids of a document
            key = jax.random.key(random.site("masked_lm.copies"))
        units = batch.extra["words"] if self.kind.unit == "word" else places
        chosen = self._candidates(batch) & (
            random.of_tokens(_site(key, "hidden"), documents, units) < self.kind.rate
        )
        seen = random.of_tokens(_site(key, "seen"), documents, places)
        other = self._token(random.of_tokens(_site(key, "other"), documents, places))
        kept = jnp.where(seen < self.kind.masked + self.kind.replaced, other, ids)
        shown = jnp.where(chosen, jnp.where(seen < self.kind.masked, self.mask, kept), ids)
        inputs = batch.inputs.replace(ids=shown.astype(ids.dtype))
        return batch.replace(inputs=inputs, targets=ids, weights=chosen.astype(batch.weights.dtype))

    def _candidates(self, batch: Batch) -> Bool[Array, "row pos"]:
        special = jnp.isin(batch.inputs.ids, jnp.asarray(self.special))
        return (batch.inputs.segments > 0) & ~special

    def _token(self, drawn: Float[Array, "row pos"]) -> Int[Array, "row pos"]:
        """A token of those that are not special, all alike, by numbers in [0, 1)."""
        count = self.vocab - len(self.special)
        number = jnp.minimum((drawn * count).astype(jnp.int32), count - 1)
        before = jnp.asarray([token - i for i, token in enumerate(self.special)])
        return number + jnp.searchsorted(before, number, side="right").astype(jnp.int32)


def _site(key: Key[Array, ""], name: str) -> Key[Array, ""]:
    return jax.random.fold_in(key, random.site(f"masked_lm.{name}"))


def masking(kind: config.MaskedLm, special: Special) -> Masking:
    """For a tokenizer's vocabulary. Raises UsageError for one without a mask token."""
    return Masking(kind, special.mask("masked_lm"), special.ids, special.vocab)
