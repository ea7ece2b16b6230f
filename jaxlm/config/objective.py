"""What a model is trained to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Autoregressive:
    """Next-token cross-entropy, computed in chunks of positions so that logits never exist whole."""

    z_loss: float = 0.0
    """Coefficient of mean(logsumexp(logits) ** 2) (PaLM, arXiv:2204.02311 section 5)."""
    chunks: int = 8
    """Chunks of positions; more of them need less memory."""


@dataclass(frozen=True)
class MaskedLm:
    """Hidden tokens are predicted in place, from both sides (Devlin et al. 2018, arXiv:1810.04805, section 3.1)."""

    rate: float = 0.15
    """Share of tokens that are to be predicted, each drawn by itself; no special ones."""
    masked: float = 0.8
    """Share of those that the model sees as the mask token."""
    replaced: float = 0.1
    """Share of those that it sees as a random token; the rest it sees as they are."""
    unit: Literal["token", "word"] = "token"
    """What is drawn; of a word all tokens are hidden together (whole-word masking, BERT's later release)."""
    copies: int = 0
    """Masks of a document, drawn once and taken in turn, an epoch each (BERT: 10); 0 draws new ones in every epoch
    (RoBERTa, arXiv:1907.11692, section 4.1).
    """
    chunks: int = 8
    """Chunks of positions; more of them need less memory."""


@dataclass(frozen=True)
class SpanCorruption:
    """Hidden spans are written out by the decoder, each behind a sentinel that stands for it in the encoder's text
    (Raffel et al. 2019, arXiv:1910.10683, section 3.1.4).
    """

    rate: float = 0.15
    """Share of a document's tokens that are hidden."""
    span: float = 3.0
    """Mean tokens of a span."""
    sentinels: int = 100
    """Sentinel tokens; a document has at most so many spans."""
    target_length: int = 0
    """Tokens of the decoder's rows, 0 for those of the encoder's; what does not fit is left out and counted."""
    chunks: int = 8
    """Chunks of positions; more of them need less memory."""


@dataclass(frozen=True)
class Denoiser:
    """One way to hide text."""

    rate: float = 0.15
    """Share of a document's tokens that are hidden, its mean for an end."""
    span: float = 3.0
    """Mean tokens of a span; 0 is the end of the document, of 1 to 2 * rate of its tokens alike, without a sentinel
    (a prefix is followed by its rest).
    """
    share: float = 1.0
    """How often it is drawn, relative to the others."""
    mode: str = ""
    """A special token at the beginning of the encoder's text, that tells which denoiser it is; empty for none."""


@dataclass(frozen=True)
class Ul2:
    """A mixture of denoisers, drawn for each document (Tay et al. 2022, arXiv:2205.05131, section 3.1)."""

    denoisers: tuple[Denoiser, ...] = (
        Denoiser(0.15, 3.0, 1.0, "[R]"),
        Denoiser(0.15, 8.0, 1.0, "[R]"),
        Denoiser(0.5, 3.0, 1.0, "[X]"),
        Denoiser(0.5, 8.0, 1.0, "[X]"),
        Denoiser(0.15, 64.0, 1.0, "[X]"),
        Denoiser(0.5, 64.0, 1.0, "[X]"),
        Denoiser(0.25, 0.0, 1.0, "[S]"),
    )
    sentinels: int = 100
    """Sentinel tokens; a document has at most so many spans."""
    target_length: int = 0
    """Tokens of the decoder's rows, 0 for those of the encoder's; what does not fit is left out and counted."""
    chunks: int = 8
    """Chunks of positions; more of them need less memory."""


@dataclass(frozen=True)
class PrefixLm:
    """The rest of a document is predicted from its beginning, which sees itself from both sides; where it ends is
    drawn for each document, all places alike (Raffel et al. 2019, arXiv:1910.10683, section 3.2.3).

    A decoder reads both; of an encoder-decoder the encoder reads the beginning.
    """

    target_length: int = 0
    """Tokens of an encoder-decoder's targets, 0 for as many as of its source; what does not fit is left out."""
    chunks: int = 8
    """Chunks of positions; more of them need less memory."""


@dataclass(frozen=True)
class Infilling:
    """The decoder writes documents whole, of which the encoder sees spans as one mask token each, however long they
    are: 0 tokens too (BART, Lewis et al. 2019, arXiv:1910.13461, section 2.2, text infilling).
    """

    rate: float = 0.3
    """Share of a document's tokens that are hidden."""
    span: float = 3.0
    """Mean tokens of a span; their number is a Poisson variable."""
    chunks: int = 8
    """Chunks of positions; more of them need less memory."""


@dataclass(frozen=True)
class FillInTheMiddle:
    """Documents are cut in three at random places, and the middle moved to the end (Bavarian et al. 2022,
    arXiv:2207.14255). Special tokens <fim_prefix>, <fim_middle> and <fim_suffix> stand before the parts.
    """

    rate: float = 0.5
    """Share of documents that are cut."""
    suffix_first: float = 0.5
    """Share of those in which the suffix stands before the prefix ("SPM", section 3)."""
    chunks: int = 8
    """Chunks of positions; more of them need less memory."""


@dataclass(frozen=True)
class Custom:
    """An objective of your own: `package.module:name`; its source is part of the experiment's hash."""

    path: str = ""


Objective = Autoregressive | MaskedLm | SpanCorruption | Ul2 | PrefixLm | Infilling | FillInTheMiddle | Custom


def rewrites(objective: Objective) -> bool:
    """Whether an objective makes new rows of a batch's, of other lengths or another order."""
    return isinstance(objective, SpanCorruption | Ul2 | PrefixLm | Infilling | FillInTheMiddle)


@dataclass(frozen=True)
class Columns:
    """What an objective wants to know of rows beyond their tokens."""

    words: bool = False
    """The place of the first token of each token's word, as `Batch.extra["words"]`."""
    copies: int = 0
    """Documents of every so many epochs are told apart; 0 is all."""


def columns(objective: Objective) -> Columns:
    """Those of an objective."""
    match objective:
        case MaskedLm(unit=unit, copies=copies):
            return Columns(unit == "word", copies)
    return Columns()


def target_length(objective: Objective, length: int) -> int:
    """Tokens of the rows that an encoder-decoder writes, beside rows of `length`."""
    return getattr(objective, "target_length", 0) or length
