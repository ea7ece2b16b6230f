"""What the vectors of texts can be asked, and a model's own classifier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jaxlm.config.records import Records


@dataclass(frozen=True)
class Vectors:
    """How a text becomes a vector of length 1."""

    pool: Literal["trained", "mean", "first", "last"] = "trained"
    """What is made of a text's last hidden states: what the run was trained for, else their mean."""
    longest: int = 0
    """Most tokens of a text, the special ones with them; what is longer is cut at its end. 0 is the length that the
    model was trained on.
    """


@dataclass(frozen=True)
class Similarity:
    """Whether cosines of pairs of texts agree with how alike people say they are: `spearman` (of ranks, the usual
    one) and `pearson`.
    """

    name: str = "similarity"
    data: Records = Records()
    first: str = "{sentence1}"
    second: str = "{sentence2}"
    score: str = "{label}"
    vectors: Vectors = Vectors()
    cluster: str = ""
    """What items belong together by: intervals draw them together."""


@dataclass(frozen=True)
class Clustering:
    """Whether k-means of texts finds their labels: `nmi` (normalized mutual information), `ari` (adjusted Rand
    index) and `purity`.
    """

    name: str = "clustering"
    data: Records = Records()
    text: str = "{text}"
    label: str = "{label}"
    merged: str = ""
    """A JSON file beside the data, {"label": ["one", "another"]}: labels that count as one; others are left out."""
    clusters: int = 0
    """0 is as many as there are labels."""
    restarts: int = 10
    """The best of so many is taken."""
    seed: int = 0
    vectors: Vectors = Vectors()


@dataclass(frozen=True)
class Logistic:
    """Multinomial logistic regression, its penalty chosen on a fifth of the training texts (linear probes: Alain
    and Bengio 2016, arXiv:1610.01644).
    """

    seed: int = 0
    """Draws that fifth."""


@dataclass(frozen=True)
class Neighbors:
    """A vote of the nearest training texts by cosine."""

    k: int = 10


@dataclass(frozen=True)
class Probe:
    """What can be read off vectors: labels of texts, learned from others with the model left as it is. Metrics are
    those of `Labels`.
    """

    name: str = "probe"
    train: Records = Records()
    """Texts that stand in `data` too are left out, and counted."""
    data: Records = Records()
    """Texts that are labeled, with labels that `train` has too."""
    text: str = "{text}"
    label: str = "{label}"
    reader: Logistic | Neighbors = Logistic()
    vectors: Vectors = Vectors()


@dataclass(frozen=True)
class Retrieval:
    """Whether a query's own documents are among the nearest of all: `recall@k`, `mrr` and `ndcg@10`.

    The documents are those of all items, each once; items of the same query have all of theirs.
    """

    name: str = "retrieval"
    data: Records = Records()
    query: str = "{question}"
    document: str = "{context}"
    depths: tuple[int, ...] = (1, 5, 10)
    """The k of `recall@k`."""
    vectors: Vectors = Vectors()
    cluster: str = ""
    """What queries belong together by, such as a document: intervals draw them together."""


@dataclass(frozen=True)
class Labels:
    """The labels of texts by a trained classifier: `accuracy`, `macro_f1`, `matthews`, `loss` (nats), `brier`, and
    the expected calibration error in bins of equal width, `ece`, and of equal mass, `ece_mass`.
    """

    name: str = "labels"
    data: Records = Records()
    text: str = "{text}"
    second: str = ""
    """The second text of a pair; empty for none."""
    label: str = "{label}"
    names: tuple[str, ...] = ()
    """Labels by number; empty for those that the run's data name, or for labels that are numbers."""
    calibration: Records = Records()
    """Other items, on which a temperature is fitted: the calibration is told after it too. Those that stand
    in `data` are left out, and counted. Empty for none.
    """
