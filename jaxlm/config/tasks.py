"""What a trained model can be asked: tasks, and where their items are.

Templates hold fields of an item, `{question}`, or of what it holds, `{answers.text}`: of a list of objects that of
each. A template with `{{` or `{%` is one of jinja2's instead, and runs in its sandbox.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jaxlm.config.records import Records
from jaxlm.config.sampling import Options
from jaxlm.config.vector_tasks import Clustering, Labels, Probe, Retrieval, Similarity

# --- worked examples ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ZeroShot:
    """No worked examples."""


@dataclass(frozen=True)
class DrawnShots:
    """Worked examples out of a file, drawn once by seed: every item sees the same, in the same order."""

    data: Records = Records()
    """Items from this very file that are drawn are asked no more."""
    count: int = 5
    seed: int = 0


@dataclass(frozen=True)
class ListedShots:
    """Worked examples written out, prompt and answer."""

    examples: tuple[str, ...] = ()


Shots = ZeroShot | DrawnShots | ListedShots

# --- tasks of likelihood -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Perplexity:
    """How likely texts are: each token is scored once, in windows as long as the model was trained for.

    A window begins with the token before it, and the last one reaches back to be full. Metrics: loss (nats a
    token), token, word and byte perplexity, and bits per byte.
    """

    name: str = "perplexity"
    data: Records = Records()
    text: str = "{text}"
    window: int = 0
    """Tokens of a window; 0 is the length that the model was trained on."""


@dataclass(frozen=True)
class Choices:
    """Which of several answers is the likeliest after a prompt: `accuracy`, once for each normalization."""

    name: str = "choices"
    data: Records = Records()
    prompt: str = "Question: {question}\n"
    cue: str = "Answer:"
    """What ends the prompt; alone, it is what answers are compared with to find how likely they are anywhere."""
    choices: tuple[str, ...] = ("{choices}",)
    """A template each, or one field that is a list."""
    answer: str = "{answer}"
    """The right choice, by its label."""
    labels: tuple[str, ...] = ()
    """Of the choices, in order: a template each, or one field that is a list; none are 0, 1, 2, ..."""
    form: Literal["cloze", "letters"] = "cloze"
    """The answers' own words are scored, or the choices are listed in the prompt and A, B, ... scored (CF and MCF
    of OLMES, arXiv:2406.08446, section 3).
    """
    normalizations: tuple[Literal["none", "token", "character", "byte", "pmi"], ...] = ("none", "character")
    """What a choice's log-probability is divided by; `pmi` subtracts that after the cue alone instead (OLMES,
    section 4.2).
    """
    delimiter: str = " "
    """Between the prompt and an answer."""
    shots: Shots = ZeroShot()
    group: str = ""
    """What accuracy is also told by."""
    cluster: str = ""
    """What items belong together by, such as a paragraph: intervals draw them together."""


@dataclass(frozen=True)
class MinimalPairs:
    """Whether the better of two texts is the likelier, as wholes (BLiMP, arXiv:1912.00582, section 4.1)."""

    name: str = "pairs"
    data: Records = Records()
    good: str = "{good}"
    bad: str = "{bad}"
    group: str = ""
    """What accuracy is also told by."""


@dataclass(frozen=True)
class LastWord:
    """The last word of a text from all before it: its perplexity, and whether it is drawn greedily (LAMBADA,
    arXiv:1606.06031).
    """

    name: str = "last_word"
    data: Records = Records()
    text: str = "{text}"


# --- tasks of drawn text -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Normalization:
    """What two answers may differ in and still be equal; in this order."""

    ignore: tuple[str, ...] = ()
    """Regular expressions of what is left out."""
    lowercase: bool = False
    punctuation: bool = False
    """Leaves ASCII punctuation out."""
    digits: bool = False
    """Leaves digits out."""
    articles: bool = False
    """Leaves a, an, the out."""
    spaces: bool = False
    """Makes white space one space, and none at the ends."""


SQUAD = Normalization(lowercase=True, punctuation=True, articles=True, spaces=True)
"""That of SQuAD's script, and of NQ-open's."""


@dataclass(frozen=True)
class Generation:
    """Text is drawn after a prompt, an answer looked for in it and compared with the right ones, any of them.

    With several samples a metric is its mean over them; `passes` and `vote` see all of an item's.
    """

    name: str = "generation"
    data: Records = Records()
    prompt: str = "Question: {question}\nAnswer:"
    answer: str = "{answer}"
    """The right answer; a field that is a list holds several. Worked examples show the first."""
    delimiter: str = " "
    """Between the prompt of a worked example and its answer."""
    shots: Shots = ZeroShot()
    draw: Options = Options(tokens=64, temperature=0.0)
    stop: tuple[str, ...] = ("\n",)
    """Texts before which a drawn one ends."""
    pattern: str = ""
    """A regular expression whose first group is the answer; without any it is all the text. Where nothing matches
    there is no answer, which is wrong.
    """
    take: Literal["first", "last"] = "first"
    """Which match."""
    answer_pattern: str = ""
    """The same of the right answer, of which `take` says the match too."""
    normalization: Normalization = Normalization()
    metrics: tuple[Literal["exact_match", "number", "f1"], ...] = ("exact_match",)
    """Equal once normalized; equal as numbers; words in common (SQuAD, arXiv:1606.05250, section 6.1)."""
    passes: tuple[int, ...] = ()
    """pass@k of the first metric for each k, unbiased (Chen et al. 2021, arXiv:2107.03374, equation 1)."""
    vote: bool = False
    """Whether the commonest answer is judged too, by the first metric (arXiv:2203.11171)."""
    cluster: str = ""
    """What items belong together by, such as a paragraph: intervals draw them together."""


Task = (
    Perplexity
    | Choices
    | MinimalPairs
    | LastWord
    | Generation
    | Similarity
    | Clustering
    | Probe
    | Retrieval
    | Labels
)
