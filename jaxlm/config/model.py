"""What a model is made of.

Every variant is a small frozen dataclass in a union; no boolean selects an architecture. The rooms that build
from these (`layers`, `models`) do so by one `match` each.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

from jaxlm.config.block import Block, LayerNorm, Layers, Norm, Plain, PostNorm, RMSNorm, apart, blocks
from jaxlm.config.head import Head, Tied, Transformed, Untied
from jaxlm.config.parametrization import Parametrization, Standard
from jaxlm.config.position import Learned, Position, Rope
from jaxlm.config.recurrent import Recurrent

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


@dataclass(frozen=True)
class Factorized:
    """Tables of fewer features, summed and normalized as `Normed`, then projected to the stream's.

    ALBERT (Lan et al. 2019, arXiv:1909.11942, section 3.1) and ELECTRA (Clark et al. 2020, arXiv:2003.10555).
    """

    features: int = 128


Embedding = Unchanged | Scaled | Normed

# --- classifiers -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NoClassifier:
    """Nothing is classified."""


@dataclass(frozen=True)
class Classifier:
    """Scores of labels by a matrix with a bias, of activation(dense(x)) (Devlin et al. 2018, section 3 and 4).

    Next sentence and classification of sequences take the first token's x, tags every token's; answers are spans
    of tokens with two labels, start and end; of multiple choice every choice is a sequence with one label.
    """

    labels: int = 2
    of: Literal["first", "mean", "last", "tokens"] = "first"
    """Of a document, its first or last token, the mean of its tokens, or each token: see `models.pooling`."""
    hidden: Literal["none", "tanh", "gelu", "relu"] = "tanh"
    """The activation of a dense layer as wide as the stream; none is no such layer."""


# --- generators --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NoGenerator:
    """An encoder by itself."""


@dataclass(frozen=True)
class Generator:
    """A small masked language model beside an encoder, its discriminator, which learns to tell the words of the
    text from those of the generator (ELECTRA, Clark et al. 2020, arXiv:2003.10555, section 3).

    It has the discriminator's tables of tokens, positions and types and the norm of their sum, which both train,
    projected where its stream has other features than they (section 3.2; the released code shares as much). What is
    not said here is as the discriminator's.
    """

    embed: int = 128
    """Features of the residual stream."""
    layers: int = 8
    block: Layers = Block(mlp=Plain(), wiring=PostNorm())
    head: Tied | Untied | Transformed = Transformed()


# --- models ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Decoder:
    """A causal language model."""

    vocab: int = 32_000
    """Rows of the embedding; at least the tokenizer's vocabulary."""
    embed: int = 512
    """Features of the residual stream."""
    layers: int = 8
    block: Layers = Block()
    position: Position = Rope()
    norm: Norm = RMSNorm()
    """Every norm of the model, and the one before the head where the last layer does not end with its own."""
    head: Head = Tied()
    dropout: float = 0.0
    """Probability of zeroing a feature of the embedding and of each residual branch in training."""
    embedding: Embedding = Unchanged()
    """What becomes of token vectors on their way into the first layer."""
    classifier: NoClassifier | Classifier = NoClassifier()
    """What scores labels, beside the head or in place of it."""
    ahead: int = 0
    """Heads that predict the 2nd, 3rd, ... token after a position, each a layer like the last one, beside it
    (Gloeckle et al. 2024, arXiv:2404.19737, section 2). Text is generated without them.
    """
    parametrization: Parametrization = Standard()
    """How initial parameters and learning rates depend on the width."""

    @property
    def stacked(self) -> Layers:
        """The layers as they are stacked: where heads begin before the last one, it is by itself."""
        return apart(self.block, self.layers) if self.ahead else self.block

    @property
    def further(self) -> list[Block]:
        """The layers of the heads that look further ahead."""
        return blocks(self.block, self.layers)[-1:] * self.ahead if self.ahead else []


@dataclass(frozen=True)
class Encoder:
    """A bidirectional model whose head predicts tokens in place (BERT and its family)."""

    vocab: int = 32_000
    embed: int = 512
    layers: int = 8
    block: Layers = Block(mlp=Plain(), wiring=PostNorm())
    position: Position = Learned()
    norm: Norm = LayerNorm()
    head: Head = Tied()
    dropout: float = 0.0
    embedding: Unchanged | Normed | Factorized = Unchanged()
    """What becomes of the sum of tokens', positions' and types' vectors on its way into the first layer."""
    types: int = 0
    """Rows of the table of token types, such as BERT's two for sentences A and B; 0 is no table."""
    classifier: NoClassifier | Classifier = NoClassifier()
    """What scores labels, beside the head or in place of it."""
    generator: NoGenerator | Generator = NoGenerator()
    """What replaces tokens of the text in training, for this model to find: see `config.ReplacedTokens`."""

    @property
    def features(self) -> int:
        """Features of the tables of tokens, positions and types."""
        return self.embedding.features if isinstance(self.embedding, Factorized) else self.embed

    @property
    def alone(self) -> Encoder:
        """This model without its generator."""
        return dataclasses.replace(self, generator=NoGenerator())


@dataclass(frozen=True)
class EncoderDecoder:
    """A bidirectional encoder whose memory a causal decoder attends to (T5, BART)."""

    vocab: int = 32_000
    embed: int = 512
    encoder_layers: int = 6
    decoder_layers: int = 6
    block: Block = Block(mlp=Plain(activation="relu"))
    position: Position = Rope()
    """One encoding for both halves; biases of distances have a table for each."""
    norm: Norm = RMSNorm()
    head: Head = Tied()
    dropout: float = 0.0
    embedding: Embedding = Unchanged()
    """What becomes of token vectors on their way into either half, each by a norm of its own."""
    tables: Literal["shared", "each"] = "shared"
    """Whether learned positions have one table for both halves, or one for each (BART)."""
    source: Literal["text", "bos_text"] = "text"
    """What the encoder reads before the end token when a prompt is given: the text, or BOS and the text (BART)."""
    start: int | None = None
    """The token that a decoder's rows begin with; None is the tokenizer's BOS (T5: padding, BART: the end)."""


Model = Decoder | Encoder | EncoderDecoder | Recurrent


def generating(model: Model) -> Encoder | None:
    """The generator of a model that has one, as a model by itself, with tables of its own."""
    match model:
        case Encoder(generator=Generator(embed, layers, block, head), embedding=embedding):
            if embed != model.features:
                embedding = Factorized(model.features)
            elif isinstance(embedding, Factorized):
                embedding = Normed()
            own = {"embed": embed, "layers": layers, "block": block, "head": head, "embedding": embedding}
            return dataclasses.replace(model.alone, **own, classifier=NoClassifier())
    return None
