"""Where text comes from, how it becomes tokens, and how tokens become rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

# --- raw text ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PythonText:
    """On every machine: the running Python's language reference by topic, its built-in modules' docstrings,
    and its standard library's sources without tests and tables (9 MB).
    """


@dataclass(frozen=True)
class TextFiles:
    """`.txt` is one document a file, `.jsonl` one a line in its field `text`."""

    paths: tuple[str, ...] = ()
    """Files, or globs (`**` for any depth)."""


Source = PythonText | TextFiles


@dataclass(frozen=True)
class Filters:
    """Thresholds of the cleaning rules; a document that breaks one is dropped and counted under its name."""

    min_chars: int = 200
    max_chars: int = 1_000_000
    max_repetition: float = 0.3
    """Largest share of text in lines or 10-grams seen twice before, or in third uses of one 4-gram."""
    max_symbols: float = 0.35
    """Largest share of characters that are neither letters, digits nor white space."""
    languages: tuple[str, ...] = ("en",)
    """Languages kept, as ISO 639-1 codes; empty keeps all."""


@dataclass(frozen=True)
class Corpus:
    """Raw text, cleaned, de-duplicated and split into training and held-out documents."""

    source: Source = PythonText()
    filters: Filters = Filters()
    held_out: int = 200_000
    """Bytes, at least, of whole documents for evaluation; a training document that shares 13 words in a row
    with one of them is dropped."""


@dataclass(frozen=True)
class Tfds:
    """A dataset already prepared by a tensorflow-datasets builder in ArrayRecord format."""

    name: str = ""
    """`name[/config][:version]` in the tfds data directory (TFDS_DATA_DIR), or a dataset's own directory."""
    split: str = "train"
    field: str = "text"
    """Feature that holds the text."""
    held_out: str = "validation"
    """Split for evaluation."""


ASSISTANT = "assistant"
"""The role of the model in a conversation."""


@dataclass(frozen=True)
class ChatTemplate:
    """The tokenizer's own chat template, or another; the model learns what an assistant says, and to end there."""

    path: str = ""
    """A Jinja file that takes the place of the tokenizer's template."""


@dataclass(frozen=True)
class Joined:
    """Prompts and answers one after another, for tokenizers without a template; each answer ends in `eos`."""

    between: str = "\n"
    """What stands between a prompt and its answer, and after `eos` before the next prompt."""


Form = ChatTemplate | Joined


@dataclass(frozen=True)
class Conversations:
    """Prompts and answers: only the answers, each with the token that ends it, are predicted."""

    paths: tuple[str, ...] = ()
    """`.jsonl` files, or globs (`**` for any depth); one conversation a line."""
    prompt: str = "prompt"
    """Field of a line that holds what the user says."""
    answer: str = "answer"
    """Field that holds what the model is to say."""
    messages: str = "messages"
    """Field of a whole conversation, a list of {"role", "content"}; a line that has it needs no other."""
    form: Form = ChatTemplate()
    held_out: int = 200_000
    """Bytes, at least, of whole conversations for evaluation; a training conversation that shares 13 words in a
    row with one of them is dropped."""


@dataclass(frozen=True)
class Labeled:
    """Texts, or pairs of texts, each with a label; what is longer than a row is cut, the longer of a pair first."""

    paths: tuple[str, ...] = ()
    """`.jsonl` files with an object a line, `.csv` or `.tsv` files whose first line has the names; or globs."""
    text: str = "text"
    """Field of the text."""
    second: str = ""
    """Field of a second text, which follows behind `eos`; empty for none."""
    label: str = "label"
    """Field of the label: its name, or its number; empty for texts that have none, which are all of label 0."""
    names: tuple[str, ...] = ()
    """Names of all labels by number; empty for labels that are numbers, or names in alphabetical order."""
    held_out: int = 20_000
    """Bytes, at least, of texts for evaluation; a training text that is one of them, or shares 13 words in a row
    with one, is dropped.
    """
    held_out_paths: tuple[str, ...] = ()
    """Files of texts for evaluation, in place of a part of `paths`."""


@dataclass(frozen=True)
class Pairs:
    """Pairs of texts out of documents, a row at most: label 0 where the second goes on from the first, else 1."""

    of: Corpus | Tfds = Corpus()
    """The documents."""
    wrong: Literal["other", "swapped"] = "other"
    """What half of the pairs are: a text and one of another document (Devlin et al. 2018, arXiv:1810.04805, section
    3.1, task 2), or the two in the wrong order (Lan et al. 2019, arXiv:1909.11942, section 3.1).
    """
    short: float = 0.1
    """Share of pairs that are cut for a shorter row, of a length between 2 tokens and a whole row's."""
    copies: int = 1
    """Times that each document is cut into pairs, in other ways (BERT: 10)."""


Data = Corpus | Tfds | Conversations | Labeled | Pairs

# --- tokenizers --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SentencePiece:
    """A SentencePiece model trained on the training documents; byte fallback makes it lossless."""

    kind: Literal["bpe", "unigram"] = "bpe"
    vocab: int = 4096
    """Tokens, with the special ones and the 256 bytes."""
    special: tuple[str, ...] = ()
    """Names of special tokens beside padding, unknown, beginning and end: <mask>, for one."""
    sentinels: int = 0
    """Special tokens <extra_id_0>, <extra_id_1>, ..., each for a hidden span (T5 has 100)."""


@dataclass(frozen=True)
class Bytes:
    """UTF-8 bytes and four special tokens: 260 in all, and those that are named."""

    special: tuple[str, ...] = ()
    """Names of more special tokens: <mask>, for one."""
    sentinels: int = 0
    """Special tokens <extra_id_0>, <extra_id_1>, ..., each for a hidden span."""


@dataclass(frozen=True)
class SentencePieceFile:
    """A trained SentencePiece model on disk."""

    path: str = ""
    """The `.model` file."""


@dataclass(frozen=True)
class TokenizerJson:
    """A Hugging Face `tokenizer.json`. Tokens that are not stated here are those that `tokenizer_config.json` or
    `special_tokens_map.json` beside it names, else those that the file itself puts around a text.
    """

    path: str = ""
    """The file, or its directory."""
    bos: str = ""
    """The token before each document, as it is written in the file; without any it is `eos`."""
    eos: str = ""
    """The token after each document."""
    pad: str = ""
    """The token that fills rows up; without any it is `eos`."""


@dataclass(frozen=True)
class Gpt2Files:
    """GPT-2's byte-level BPE, from a vocabulary and its merges; lossless."""

    path: str = ""
    """`vocab.json` (in the first release `encoder.json`)."""
    merges: str = ""
    """`merges.txt` (`vocab.bpe`); empty for the `merges.txt` beside the vocabulary."""
    end: str = "<|endoftext|>"
    """The token that stands before and after each document, and pads."""


@dataclass(frozen=True)
class WordPieceFile:
    """BERT's WordPiece, from its `vocab.txt`: [CLS] begins a document, [SEP] ends it, [PAD] pads."""

    path: str = ""
    """`vocab.txt`, one token a line."""
    lowercase: bool = True
    """Whether the model is uncased: text loses its capitals and accents."""


@dataclass(frozen=True)
class Whitespace:
    """The commonest words of the training documents, cut at white space; all others are one unknown token."""

    vocab: int = 32_000
    """Most tokens, the special ones with them."""
    special: tuple[str, ...] = ()
    """Names of special tokens beside padding, unknown, beginning and end: <mask>, for one."""
    sentinels: int = 0
    """Special tokens <extra_id_0>, <extra_id_1>, ..., each for a hidden span."""


@dataclass(frozen=True)
class WordPiece:
    """BERT's WordPiece trained on the training documents (Devlin et al. 2018, arXiv:1810.04805): [PAD], [UNK],
    [CLS] (which begins a document), [SEP] (which ends it), [MASK].
    """

    vocab: int = 8192
    """Most tokens, the special ones with them."""
    lowercase: bool = True
    """Whether text loses its capitals and accents."""
    special: tuple[str, ...] = ()
    """Names of more special tokens."""
    sentinels: int = 0
    """Special tokens <extra_id_0>, <extra_id_1>, ..., each for a hidden span."""


Tokenizer = (
    SentencePiece | Bytes | SentencePieceFile | TokenizerJson | Gpt2Files | WordPieceFile | Whitespace | WordPiece
)
Trained = SentencePiece | Whitespace | WordPiece
"""Those that learn from the training documents."""


def kept(tokenizer: Tokenizer, directory: Path) -> Tokenizer:
    """The same tokenizer out of the directory in which a run keeps it."""
    match tokenizer:
        case Bytes():
            return tokenizer
        case SentencePiece() | SentencePieceFile():
            return SentencePieceFile(str(directory / "tokenizer.model"))
    return TokenizerJson(str(directory / "tokenizer.json"))


# --- rows --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stream:
    """Rows are consecutive cuts of the stream of shuffled documents; no token is lost, no row is padded."""

    positions: Literal["document", "row"] = "document"
    """A document cut at a row's edge continues its positions, or restarts them with the row."""


@dataclass(frozen=True)
class BestFit:
    """Whole documents in rows that are padded: longest first, each where it leaves the least room (Ding et al.
    2024, arXiv:2404.10830). A document longer than a row is cut into rows.
    """

    positions: Literal["document", "row"] = "document"
    """A cut document continues its positions, or restarts them with the row."""


Packing = Stream | BestFit
