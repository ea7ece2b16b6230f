"""What a layer is made of: norms, attention, feed-forward, and how they are wired."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jaxlm.config.errors import UsageError
from jaxlm.config.position import Rope

Activation = Literal["silu", "gelu", "gelu_tanh", "relu"]


@dataclass(frozen=True)
class RMSNorm:
    """x / rms(x) * scale (Zhang and Sennrich 2019, arXiv:1910.07467)."""

    epsilon: float = 1e-6


@dataclass(frozen=True)
class ZeroCentered:
    """x / rms(x) * (1 + scale): scales begin at zero (Gemma, arXiv:2403.08295, its released code)."""

    epsilon: float = 1e-6


@dataclass(frozen=True)
class LayerNorm:
    """(x - mean) / std * scale + bias (Ba et al. 2016, arXiv:1607.06450)."""

    epsilon: float = 1e-5


@dataclass(frozen=True)
class Unbiased:
    """(x - mean) / std * scale (ModernBERT, arXiv:2412.13663, section 2.1.1)."""

    epsilon: float = 1e-5


Norm = RMSNorm | LayerNorm | ZeroCentered | Unbiased


@dataclass(frozen=True)
class NoNorm:
    """Queries and keys as they are projected."""


@dataclass(frozen=True)
class EachHead:
    """Each head of queries and keys by itself, one scale for all (Henry et al. 2020, arXiv:2010.04245; Qwen3)."""


@dataclass(frozen=True)
class AllHeads:
    """All heads of queries together, and all of keys, a scale for every feature (OLMo 2, arXiv:2501.00656)."""


@dataclass(frozen=True)
class OfModel:
    """The model's position encoding, as in all its other layers."""


QkNorm = NoNorm | EachHead | AllHeads
"""What the model's kind of norm makes alike before queries and keys are turned."""


@dataclass(frozen=True)
class Attention:
    """Softmax attention with grouped key and value heads (Ainslie et al. 2023, arXiv:2305.13245)."""

    heads: int = 8
    kv_heads: int = 8
    """Key and value heads; each serves heads / kv_heads query heads. 1 is multi-query attention."""
    head: int = 64
    """Features of one head."""
    bias: Literal["none", "qkv", "all"] = "none"
    """Which projections have a bias."""
    window: int | None = None
    """A query sees itself and the window - 1 tokens before it; None is all of them."""
    softcap: float | None = None
    """Scores become softcap * tanh(scores / softcap) (Gemma 2)."""
    qk_norm: QkNorm = NoNorm()
    scale: float | None = None
    """Scores are products of queries and keys times this; None is head ** -0.5."""
    position: OfModel | Rope = OfModel()
    """How queries and keys of this layer are turned (Gemma 3: slower in layers without a window)."""


@dataclass(frozen=True)
class Gated:
    """down(activation(gate(x)) * up(x)) (Shazeer 2020, arXiv:2002.05202)."""

    width: int = 1376
    activation: Activation = "silu"
    bias: Literal["none", "all"] = "none"


@dataclass(frozen=True)
class Plain:
    """down(activation(up(x))) (Vaswani et al. 2017)."""

    width: int = 2048
    activation: Activation = "gelu_tanh"
    bias: Literal["none", "all"] = "none"


@dataclass(frozen=True)
class Dropless:
    """Every choice of every token is computed: tokens sorted by expert, one ragged product (arXiv:2211.15841)."""


@dataclass(frozen=True)
class Capacity:
    """An expert takes at most ceil(factor * tokens * top_k / experts) tokens of a group; later ones are dropped.

    The group is a number of rows and never what a device happens to hold (GShard, arXiv:2006.16668, section 2.2).
    A dropped choice adds nothing: the token keeps its residual stream, shared experts and other choices.
    """

    factor: float = 1.25
    rows: int = 1
    """Neighboring rows whose tokens share the capacity; with more than one, micro-batches are refused."""


Dispatch = Dropless | Capacity


@dataclass(frozen=True)
class Balance:
    """coefficient * experts * sum over experts of (share of choices * mean probability): 1 when balanced.

    Switch Transformer (arXiv:2101.03961, equations 4 to 6); for top_k > 1 the shares still sum to 1, as in
    DeepSeekMoE (arXiv:2401.06066, equations 12 to 14). Some codes let them sum to top_k: divide their coefficient.
    """

    coefficient: float = 0.01
    over: Literal["document", "batch"] = "document"
    """What is balanced, then averaged: each document, or all of a global batch (micro-batches are refused)."""


@dataclass(frozen=True)
class Moe:
    """A mixture of gated experts: each token goes through its `top_k` best (Shazeer et al. 2017, arXiv:1701.06538).

    Mixtral is `Moe(8, 2, 14336)`: softmax over the chosen scores is the same as renormalized probabilities.
    """

    experts: int = 8
    top_k: int = 2
    """Experts of one token."""
    width: int = 1408
    """Hidden features of one expert."""
    activation: Activation = "silu"
    scores: Literal["softmax", "sigmoid"] = "softmax"
    """Probabilities of the experts from the router's logits; sigmoid judges each by itself (DeepSeek-V3)."""
    weights: Literal["renormalized", "scores"] = "renormalized"
    """Factors of the chosen experts' outputs: their scores divided by their sum, or as they are (DeepSeekMoE)."""
    shared: int = 0
    """Hidden features of the experts that every token goes through (DeepSeekMoE: their number * width)."""
    dispatch: Dispatch = Dropless()
    balance: Balance = Balance()
    router_z: float = 0.001
    """Coefficient of mean(logsumexp(router logits) ** 2) (ST-MoE, arXiv:2202.08906, equation 5)."""


Mlp = Gated | Plain | Moe


@dataclass(frozen=True)
class PreNorm:
    """x + f(norm(x)) (Xiong et al. 2020, arXiv:2002.04745)."""


@dataclass(frozen=True)
class NormedInput:
    """x + attention(x), then x + mlp(norm(x)): the first layer after a normalized embedding (ModernBERT)."""


@dataclass(frozen=True)
class PostNorm:
    """norm(x + f(x)) (Vaswani et al. 2017)."""


@dataclass(frozen=True)
class ResPostNorm:
    """x + norm(f(x)) (Liu et al. 2021, arXiv:2111.09883; OLMo 2)."""


@dataclass(frozen=True)
class Sandwich:
    """x + norm(f(norm(x))), two norms (Ding et al. 2021, arXiv:2105.13290; Gemma 2)."""


@dataclass(frozen=True)
class Parallel:
    """x + attention(norm(x)) + mlp(norm(x)), one norm (Wang and Komatsuzaki 2021: GPT-J)."""


@dataclass(frozen=True)
class ParallelTwoNorms:
    """x + attention(norm(x)) + mlp(norm(x)), two norms (Black et al. 2022, arXiv:2204.06745: GPT-NeoX)."""


Wiring = PreNorm | NormedInput | PostNorm | ResPostNorm | Sandwich | Parallel | ParallelTwoNorms


@dataclass(frozen=True)
class Block:
    """One layer: attention and MLP, with norms of the model's kind, joined by the wiring."""

    attention: Attention = Attention()
    mlp: Mlp = Gated()
    wiring: Wiring = PreNorm()


@dataclass(frozen=True)
class Pattern:
    """Layers that differ: `prefix`, then `period` over and over, then `suffix`."""

    period: tuple[Block, ...]
    prefix: tuple[Block, ...] = ()
    suffix: tuple[Block, ...] = ()


@dataclass(frozen=True)
class Shared:
    """`period` over and over with the same parameters each time (Lan et al. 2019, arXiv:1909.11942: ALBERT)."""

    period: tuple[Block, ...]


Layers = Block | Pattern | Shared


def blocks(block: Layers, layers: int) -> list[Block]:
    """The blocks of a stack in order. Raises UsageError if a pattern does not fill it."""
    if isinstance(block, Block):
        return [block] * layers
    prefix, suffix = (block.prefix, block.suffix) if isinstance(block, Pattern) else ((), ())
    inner = layers - len(prefix) - len(suffix)
    if inner < 0 or inner % max(len(block.period), 1) or (inner and not block.period):
        raise UsageError(
            f"model.layers is {layers}: prefix {len(prefix)}, suffix {len(suffix)} "
            f"and whole periods of {len(block.period)} do not fill it"
        )
    return [*prefix, *block.period * (inner // max(len(block.period), 1)), *suffix]


def distinct(block: Layers, layers: int) -> list[Block]:
    """Those of `blocks` that have parameters of their own."""
    return list(block.period) if isinstance(block, Shared) else blocks(block, layers)


def apart(block: Layers, layers: int) -> Layers:
    """The same layers, the last of which is in a suffix, with the rest of its period where it has one.

    Raises UsageError where it has its parameters in common with others.
    """
    if isinstance(block, Shared):
        raise UsageError("model.block is Shared: its last layer is all the others too; use a block or a pattern")
    if isinstance(block, Block):
        return Pattern((block,), suffix=(block,))
    if block.suffix:
        return block
    if len(block.prefix) == layers:
        return Pattern(block.period, block.prefix[:-1], block.prefix[-1:])
    return Pattern(block.period, block.prefix, block.period)


def ends_normed(block: Layers, layers: int) -> bool:
    """Whether a stack ends with a norm of its last layer's, so that the model needs none after it (BERT, BART)."""
    return any(isinstance(one.wiring, PostNorm) for one in blocks(block, layers)[-1:])
