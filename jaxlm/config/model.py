"""What a model is made of.

Every variant is a small frozen dataclass in a union; no boolean selects an architecture. The rooms that build
from these (`layers`, `models`) do so by one `match` each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# --- positions ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Unscaled:
    """Planes turn as they were trained."""


@dataclass(frozen=True)
class Interpolated:
    """Every plane turns `factor` times slower: positions are interpolated (Chen et al. 2023, arXiv:2306.15595)."""

    factor: float = 8.0


@dataclass(frozen=True)
class Yarn:
    """Planes of few turns in `length` are interpolated, the others not (Peng et al. 2023, arXiv:2309.00071).

    Queries and keys also grow by 0.1 ln(factor) + 1, their scores by its square.
    """

    factor: float = 8.0
    length: int = 4096
    """Positions that the model was trained on."""
    fast: float = 32.0
    """Planes of at least as many turns in `length` are left alone."""
    slow: float = 1.0
    """Planes of at most as many turns in `length` are interpolated whole; in between, in part."""


@dataclass(frozen=True)
class Llama3:
    """As Yarn, with a ramp in the number of turns, and scores as they were (Llama 3.1, its released code)."""

    factor: float = 8.0
    length: int = 8192
    """Positions that the model was trained on."""
    fast: float = 4.0
    """Planes of at least as many turns in `length` are left alone."""
    slow: float = 1.0
    """Planes of at most as many turns in `length` are interpolated whole; in between, in part."""


@dataclass(frozen=True)
class DynamicNtk:
    """Planes turn by a larger base, the slow ones most: NTK-aware scaling, as large as rows of `target` ask for.

    The base is theta * (factor * target / length - (factor - 1)) ** (d / (d - 2)) for d rotated features, and theta
    where `target` is at most `length` (Peng et al. 2023, arXiv:2309.00071, section 3.3; transformers' "dynamic").
    There the target is each row's own length at every moment, and a cache keeps keys that were turned by the bases
    of shorter rows: decoding differs from one pass over the same row. Here it is stated, so that angles are a
    function of positions alone, the same for both.
    """

    factor: float = 2.0
    length: int = 4096
    """Positions that the model was trained on."""
    target: int = 8192
    """Tokens of the rows that planes are turned for; transformers turns so in rows of exactly that length."""


Scaling = Unscaled | Interpolated | DynamicNtk | Yarn | Llama3
"""How the planes of a trained model turn in rows longer than it was trained on."""


@dataclass(frozen=True)
class Rope:
    """Rotary position embedding (Su et al. 2021, arXiv:2104.09864)."""

    theta: float = 10_000.0
    """Base of the geometric series of wavelengths."""
    fraction: float = 1.0
    """Share of each head's features that is rotated; the rest passes unchanged."""
    pairs: Literal["halves", "interleaved"] = "halves"
    """Which features form a plane: (i, i + d/2) as in LLaMA, or (2i, 2i + 1) as in the paper."""
    scaling: Scaling = Unscaled()


@dataclass(frozen=True)
class Sinusoidal:
    """Sines and cosines of the position are added to the token embedding (Vaswani et al. 2017, section 3.5)."""

    theta: float = 10_000.0
    """Base of the geometric series of wavelengths."""
    pairs: Literal["halves", "interleaved"] = "interleaved"
    """Where the cosine of a sine lies: half of the features after it, or next to it as in the paper."""


@dataclass(frozen=True)
class Alibi:
    """Scores fall with distance, by a slope for each head (Press et al. 2021, arXiv:2108.12409).

    In an encoder they fall on both sides alike.
    """

    factor: float = 1.0
    """Of all slopes (Falcon subtracts before it divides by sqrt(head): head ** -0.5)."""


@dataclass(frozen=True)
class Learned:
    """A trained vector for each position, added to the token embedding (GPT-2, BERT)."""

    length: int = 1024
    """Number of positions that have a vector."""
    offset: int = 0
    """Rows of the table before the first position's, for what is no position (OPT has 2)."""


@dataclass(frozen=True)
class RelativeBias:
    """A trained number for each head and bucket of distances, added to the scores of every layer (T5).

    Raffel et al. 2019 (arXiv:1910.10683, section 2.1) and its released code: half of the buckets are single
    distances, the others grow geometrically. In an encoder each side has half of them; an encoder-decoder has a
    table for each half. Cross-attention has none.
    """

    buckets: int = 32
    distance: int = 128
    """Distances from here on share the last bucket."""


@dataclass(frozen=True)
class Shaw:
    """Trained vectors of clipped distances, added to keys and values; a layer has its own, which its heads share.

    Shaw et al. 2018 (arXiv:1803.02155, equations 3 to 6, and section 3.3 for the heads). In self-attention only.
    """

    clip: int = 16
    """Distances from here on share the last vector of their side."""
    vectors: Literal["keys_and_values", "keys"] = "keys_and_values"
    """What distances have vectors for; those of keys alone do as well (table 3)."""


@dataclass(frozen=True)
class TransformerXl:
    """Queries also meet projected sinusoids of distances (Dai et al. 2019, arXiv:1901.02860, section 3.3).

    Every layer has a projection of its own, as wide as that of its keys, and two biases of queries for each head:
    one where they meet keys, one where they meet distances. Gopher and Chinchilla. In self-attention only.
    """


@dataclass(frozen=True)
class NoPosition:
    """No position information beyond the causal mask (Kazemnejad et al. 2023, arXiv:2305.19466)."""


Position = Rope | Sinusoidal | Learned | Alibi | RelativeBias | Shaw | TransformerXl | NoPosition

# --- parts of a block --------------------------------------------------------------------------------------


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


Norm = RMSNorm | LayerNorm | ZeroCentered


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
    activation: Literal["silu", "gelu", "gelu_tanh", "relu"] = "silu"
    bias: Literal["none", "all"] = "none"


@dataclass(frozen=True)
class Plain:
    """down(activation(up(x))) (Vaswani et al. 2017)."""

    width: int = 2048
    activation: Literal["silu", "gelu", "gelu_tanh", "relu"] = "gelu_tanh"
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
    activation: Literal["silu", "gelu", "gelu_tanh", "relu"] = "silu"
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


Wiring = PreNorm | PostNorm | ResPostNorm | Sandwich | Parallel | ParallelTwoNorms


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


# --- token embeddings --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Unchanged:
    """Token vectors as they are looked up."""


@dataclass(frozen=True)
class Scaled:
    """Token vectors times sqrt(embed), before positions are added (Vaswani et al. 2017, section 3.4; Gemma)."""


@dataclass(frozen=True)
class Normed:
    """Normalized by the model's kind of norm, after positions are added (BLOOM, arXiv:2211.05100, section 3.2)."""


Embedding = Unchanged | Scaled | Normed

# --- output heads ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tied:
    """Logits by the token embedding's transpose (Press and Wolf 2017, arXiv:1608.05859)."""

    softcap: float | None = None


@dataclass(frozen=True)
class Untied:
    """Logits by a matrix of their own."""

    softcap: float | None = None
    bias: Literal["none", "all"] = "none"


Head = Tied | Untied

# --- models ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Decoder:
    """A causal language model."""

    vocab: int = 32_000
    """Rows of the embedding; at least the tokenizer's vocabulary."""
    embed: int = 512
    """Features of the residual stream."""
    layers: int = 8
    block: Block | Pattern = Block()
    position: Position = Rope()
    norm: Norm = RMSNorm()
    """Every norm of the model, and the one before the head."""
    head: Head = Tied()
    dropout: float = 0.0
    """Probability of zeroing a feature of the embedding and of each residual branch in training."""
    embedding: Embedding = Unchanged()
    """What becomes of token vectors on their way into the first layer."""


@dataclass(frozen=True)
class Encoder:
    """A bidirectional model whose head predicts tokens in place (BERT and its family)."""

    vocab: int = 32_000
    embed: int = 512
    layers: int = 8
    block: Block | Pattern = Block(mlp=Plain(), wiring=PostNorm())
    position: Position = Learned()
    norm: Norm = LayerNorm()
    head: Head = Tied()
    dropout: float = 0.0


@dataclass(frozen=True)
class EncoderDecoder:
    """A bidirectional encoder whose memory a causal decoder attends to (T5, BART)."""

    vocab: int = 32_000
    embed: int = 512
    encoder_layers: int = 6
    decoder_layers: int = 6
    block: Block = Block(mlp=Plain(activation="relu"))
    position: Position = Rope()
    norm: Norm = RMSNorm()
    head: Head = Tied()
    dropout: float = 0.0


@dataclass(frozen=True)
class Rwkv4:
    """A recurrent language model with linear attention (Peng et al. 2023, arXiv:2305.13048)."""

    vocab: int = 32_000
    embed: int = 512
    layers: int = 8
    width: int = 2048
    """Features of the channel mix's hidden layer."""
    norm: LayerNorm = LayerNorm()
    head: Head = Untied()
    dropout: float = 0.0


Model = Decoder | Encoder | EncoderDecoder | Rwkv4
