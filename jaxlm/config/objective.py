"""What a model is trained to do."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from jaxlm.config.distillation import Feature, NoResponse, OffPolicy, Policy, Response, SoftLabels


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
class ReplacedTokens:
    """Hidden tokens are predicted by a small generator and replaced by what it draws, and the model tells of every
    token whether it was replaced (ELECTRA, Clark et al. 2020, arXiv:2003.10555, section 3.1).
    """

    hidden: MaskedLm = MaskedLm(masked=1.0, replaced=0.0)
    """What the generator is to predict, and what it sees in its place."""
    weight: float = 50.0
    """Factor of the model's loss; the generator's has 1."""

    @property
    def chunks(self) -> int:
        """Chunks of positions of the generator's logits."""
        return self.hidden.chunks


@dataclass(frozen=True)
class NextSentence:
    """Hidden tokens of pairs of texts, and whether the second goes on from the first: the labels of `data:pairs`
    (Devlin et al. 2018, arXiv:1810.04805, section 3.1; with pairs of `wrong` order Lan et al. 2019,
    arXiv:1909.11942, section 3.1). The loss is the sum of both.
    """

    hidden: MaskedLm = MaskedLm()

    @property
    def chunks(self) -> int:
        """Chunks of positions of the hidden tokens' logits."""
        return self.hidden.chunks


@dataclass(frozen=True)
class Classification:
    """The labels of texts or of pairs of texts (`data:labeled`, `data:pairs`), by the model's classifier."""


@dataclass(frozen=True)
class Contrastive:
    """Each text's vector is to be told from those of all others of the batch by the vector of its positive: the
    cross-entropy of cosines / temperature (van den Oord et al. 2018, arXiv:1807.03748; for sentences Gao et al.
    2021, arXiv:2104.08821, equations 1 and 5).
    """

    positive: Literal["second", "dropout"] = "second"
    """The second text of a pair, or the same text once more under another dropout (SimCSE): held out, where there
    is no dropout, a text is its own positive, and the loss tells only how far apart texts are.
    """
    of: Literal["first", "mean", "last"] = "mean"
    """What makes a vector of a text's hidden states: see `models.pooling`."""
    label: int = 0
    """The label of the pairs that belong together; others are left out."""
    temperature: float = 0.05
    most: int = 8
    """Texts of a row, at most; those beyond are left out and counted."""


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

    A decoder reads both, and its windows hold on either side of a token; of an encoder-decoder the encoder reads
    the beginning.
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
    permuted: float = 0.0
    """Share of a document's sentences that change places before spans are hidden (BART's final recipe has 1). A
    sentence ends with a token whose text ends in ".", "!" or "?"; what follows the last one is a sentence too.
    """
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
class MultiToken:
    """The next token, and by each of `model.ahead` further heads one beyond it (Gloeckle et al. 2024,
    arXiv:2404.19737, section 2).
    """

    coefficient: float = 1.0
    """Factor of each further head's cross-entropy; that of the next token has 1."""
    chunks: int = 8
    """Chunks of positions; more of them need less memory."""


Labels = Autoregressive | MaskedLm | SpanCorruption | Ul2 | PrefixLm | Infilling | FillInTheMiddle | Classification
"""Objectives whose labels a teacher can soften: all that predict tokens once each, and labels of texts."""


@dataclass(frozen=True)
class Distillation:
    """A student learns of a teacher, a whole model that is not trained and sees the same text as it does: labels *
    the loss on the labels + weight * the divergence from the teacher + each feature's loss times its own weight.
    """

    base: Labels = Autoregressive()
    """The objective on the labels: it also prepares the text, with its hidden tokens or spans."""
    response: Response = SoftLabels()
    """How the student's distributions over tokens, or labels of texts, differ from the teacher's."""
    labels: float = 0.5
    weight: float = 0.5
    at: Literal["targets", "tokens"] = "targets"
    """Where distributions over tokens are compared: where there is a target, each with its weight, or at all tokens
    that are not padding (DistilBERT).
    """
    features: tuple[Feature, ...] = ()
    """What else of the teacher's the student is to have."""
    policy: Policy = OffPolicy()
    """Whose texts both read; the student's own have no labels. Beside a policy gradient `labels` are those of every
    other row, which stays as the data have it.
    """
    likeliest: int = 0
    """So many of the teacher's likeliest tokens at each place are written down once, before training, which then
    needs no teacher: all others are one outcome more. 0 asks the teacher at each step.
    """

    @property
    def chunks(self) -> int:
        """Chunks of positions of both models' logits."""
        return getattr(self.base, "chunks", 1)

    @property
    def scores(self) -> bool:
        """Whether models are asked for scores of tokens or labels at all."""
        return self.labels != 0 or not isinstance(self.response, NoResponse)


@dataclass(frozen=True)
class Custom:
    """An objective of your own: `package.module:name`; its source is part of the experiment's hash."""

    path: str = ""


Objective = (
    Autoregressive
    | MaskedLm
    | NextSentence
    | Classification
    | Contrastive
    | ReplacedTokens
    | SpanCorruption
    | Ul2
    | PrefixLm
    | Infilling
    | FillInTheMiddle
    | MultiToken
    | Custom
    | Distillation
)


def on_labels(objective: Objective) -> Objective:
    """The objective itself, or that on the labels beside a teacher."""
    return objective.base if isinstance(objective, Distillation) else objective


def asks_teacher(objective: Objective) -> bool:
    """Whether a teacher is computed at each step: not where what it says was written down before."""
    return not (isinstance(objective, Distillation) and objective.likeliest)


def whole_rows(objective: Objective) -> bool:
    """Whether an objective needs the tokens of each row whole and in order: it writes rows anew, marks parts that
    belong together, or looks for where texts begin and end.
    """
    if isinstance(objective, Distillation) and not isinstance(objective.policy, OffPolicy):
        return True
    rows = SpanCorruption | Ul2 | PrefixLm | Infilling | FillInTheMiddle | MultiToken
    return isinstance(on_labels(objective), rows | NextSentence | Classification | Contrastive)


def scores_tokens(objective: Objective) -> bool:
    """Whether an objective asks a model's head for scores of tokens."""
    if isinstance(objective, Distillation) and not objective.scores:
        return False
    return not isinstance(on_labels(objective), Classification | Contrastive)


def pooling(objective: Objective, model: Any) -> Literal["first", "mean", "last"]:
    """What makes a vector of a text's hidden states: what the model was trained for, else the mean."""
    match on_labels(objective):
        case Contrastive(of=of):
            return of
        case Classification() if model.classifier.of != "tokens":
            return model.classifier.of
    return "mean"


@dataclass(frozen=True)
class Columns:
    """What an objective wants to know of rows beyond their tokens."""

    words: bool = False
    """The place of the first token of each token's word, as `Batch.extra["words"]`."""
    copies: int = 0
    """Documents of every so many epochs are told apart; 0 is all."""
    labels: bool = False
    """The number of each document's class at its first token, -1 at all others, as `Batch.extra["labels"]`."""
    ends: bool = False
    """1 where a token's text ends a sentence, else 0, as `Batch.extra["ends"]`."""
    likeliest: int = 0
    """A teacher's likeliest tokens at each place, so many, as `Batch.extra["likely_tokens"]`, and their
    log-probabilities, `Batch.extra["likely"]`.
    """


def columns(objective: Objective) -> Columns:
    """Those of an objective."""
    if isinstance(objective, Distillation) and objective.likeliest:
        return replace(columns(objective.base), likeliest=objective.likeliest)
    match on_labels(objective):
        case NextSentence(hidden):
            return replace(columns(hidden), labels=True)
        case Classification() | Contrastive(positive="second"):
            return Columns(labels=True)
        case MaskedLm(unit=unit, copies=copies) | ReplacedTokens(MaskedLm(unit=unit, copies=copies)):
            return Columns(unit == "word", copies)
        case Infilling(permuted=permuted):
            return Columns(ends=permuted > 0)
    return Columns()


def target_length(objective: Objective, length: int) -> int:
    """Tokens of the rows that an encoder-decoder writes, beside rows of `length`."""
    return getattr(on_labels(objective), "target_length", 0) or length
