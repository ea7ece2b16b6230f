"""From hidden states to scores."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from jaxlm import config
from jaxlm.config.errors import UsageError
from jaxlm.layers.contracts import Call
from jaxlm.layers.initial import Initial
from jaxlm.layers.mlp import activate
from jaxlm.layers.norms import Norm, initial_norm
from jaxlm.layers.products import trailing
from jaxlm.layers.projection import Weight, gathered, project
from jaxlm.parallel.layout import Axes

Scorer = Callable[[Float[Array, "... embed"]], Float[Array, "... vocab"]]


@struct.dataclass
class Transform:
    """norm(activation(dense(x))) before the embedding's transpose, and the bias of the scores after it."""

    dense: Weight
    norm: Norm
    bias: Float[Array, "vocab"]

    def leaf_axes(self) -> dict[str, Axes]:
        """Logical axes of each leaf of its own."""
        return {"bias": ("vocab",)}


Head = Weight | Transform | None


def initial_embedding(vocab: int, embed: int, init: Initial) -> Weight:
    """Token vectors of standard deviation 0.02."""
    return init.dense("embedding", (vocab, embed), ("vocab", "embed"), std=0.02)


def initial_head(
    kind: config.head.Head,
    vocab: int,
    embed: int,
    init: Initial,
    *,
    features: int | None = None,
    norm: config.block.Norm = config.LayerNorm(),
    scale: float = 1.0,
) -> Head:
    """What the head has of its own; `features` are those of the embedding that it is tied to, or the stream's.

    An untied one has the variance scale^2 / embed.
    """
    match kind:
        case config.Tied() | config.NoHead():
            return None
        case config.Untied(bias=bias):
            return init.dense("head", (embed, vocab), ("embed", "vocab"), scale=scale, bias=bias == "all")
        case config.Transformed(bias=bias):
            features = features or embed
            dense = init.at("head").dense("dense", (embed, features), ("embed", "embed"), bias=bias == "all")
            return Transform(dense, initial_norm(norm, features, init.dtype), jnp.zeros(vocab, init.dtype))


def scorer(embedding: Weight, head: Head, kind: config.head.Head, call: Call, *, multiplier: float = 1.0) -> Scorer:
    """Hidden states -> scores over the vocabulary, soft-capped if the config says so, in the logits' format.

    `multiplier` is of hidden states, beside the config's own. The head is gathered here, once for every use. Raises
    UsageError where there is none.
    """
    if isinstance(kind, config.NoHead):
        raise UsageError("model.head is no_head: this model has hidden states and no scores of tokens")
    transform = gathered(head, call) if isinstance(head, Transform) else None
    own = head is not None and transform is None
    weight, spec = (head, "te,ev->tv") if own else (embedding, "te,ve->tv")
    weight, softcap = gathered(weight, call), None if transform is not None else kind.softcap
    scale = multiplier * (kind.scale if isinstance(kind, config.Tied) else 1.0)
    inside = dataclasses.replace(call, layout=call.layout.gathered())

    def scores(hidden: Float[Array, "... embed"]) -> Float[Array, "... vocab"]:
        with jax.named_scope("head"):
            if transform is not None:
                hidden = _transformed(transform, hidden, kind.activation, inside)
            hidden = call.layout.enter(hidden if scale == 1.0 else hidden * scale, hidden.ndim - 2)
            flat = hidden.reshape(-1, hidden.shape[-1])
            scores = project(weight, flat, spec, inside)
            if transform is not None:
                scores += trailing(transform.bias, scores)
            scores = scores.astype(call.precision.logits)
            if softcap is not None:
                scores = softcap * jnp.tanh(scores / softcap)
            return scores.reshape(*hidden.shape[:-1], scores.shape[-1])

    return scores


def _transformed(
    transform: Transform, hidden: Float[Array, "... embed"], activation: str, call: Call
) -> Float[Array, "... features"]:
    """A device's own tokens, as the embedding's transpose takes them."""
    flat = hidden.reshape(-1, hidden.shape[-1])
    flat = transform.norm(activate(activation, project(transform.dense, flat, "te,ef->tf", call)))
    return flat.reshape(*hidden.shape[:-1], flat.shape[-1])


@struct.dataclass
class Classifier:
    """Scores of labels, of the features of documents or of tokens."""

    dense: Weight | None
    out: Weight
    config: config.Classifier = struct.field(pytree_node=False)

    def __call__(self, features: Float[Array, "... embed"], call: Call) -> Float[Array, "... labels"]:
        """In the logits' format."""
        with jax.named_scope("head"):
            x = features.reshape(-1, features.shape[-1])
            if self.dense is not None:
                x = activate(self.config.hidden, project(self.dense, x, "te,ef->tf", call))
            scores = project(self.out, x, "te,el->tl", call).astype(call.precision.logits)
            return scores.reshape(*features.shape[:-1], scores.shape[-1])


def initial_classifier(
    kind: config.NoClassifier | config.Classifier, embed: int, init: Initial
) -> Classifier | None:
    """A classifier of so many features, or None; the matrix to the labels starts with standard deviation 0.02."""
    match kind:
        case config.NoClassifier():
            return None
        case config.Classifier(labels=labels, hidden=hidden):
            square = (embed, embed), ("embed", "embed")
            dense = None if hidden == "none" else init.dense("dense", *square, bias=True)
            out = init.dense("out", (embed, labels), ("embed", "labels"), std=0.02, bias=True)
            return Classifier(dense, out, kind)


def classified(
    classifier: Classifier | None, features: Float[Array, "... embed"], call: Call
) -> Float[Array, "... labels"]:
    """The scores of labels. Raises UsageError where the model has no classifier."""
    if classifier is None:
        raise UsageError(
            "model.classifier is no_classifier: this model scores no labels; use model.classifier:classifier"
        )
    return classifier(features, call)
