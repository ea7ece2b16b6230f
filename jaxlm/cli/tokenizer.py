"""usage: jaxlm tokenizer train [FILE ...] --kind KIND --out DIR [--vocab N] [--special NAME ...]
                             [--sentinels N] [--cased]

Trains a tokenizer and writes it as models come with it: tokenizer.json, tokenizer_config.json and, where it
is SentencePiece's, tokenizer.model. What it does to the text is printed. An experiment takes it by
`tokenizer:tokenizer_json --tokenizer.path DIR` (or `tokenizer:sentence_piece_file --tokenizer.path
DIR/tokenizer.model`), or trains its own: `tokenizer:sentence_piece`, `word_piece`, `whitespace`, `bytes`.

  FILE           .txt (a document each) or .jsonl (one a line, field text), or globs; bytes need none
  --kind KIND    bpe or unigram (SentencePiece, lossless by bytes), wordpiece (BERT's), whitespace, byte
  --out DIR      a new directory
  --vocab N      tokens, the special ones with them (default 8192)
  --special A B  names of special tokens: <mask> hides tokens (WordPiece has [MASK] already)
  --sentinels N  special tokens <extra_id_0> to <extra_id_{N-1}>, each for a hidden span (T5 has 100)
  --cased        WordPiece keeps capitals and accents
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from jaxlm.cli.generate import Parser
from jaxlm.config.data import Bytes, SentencePiece, TextFiles, Tokenizer, Whitespace, WordPiece
from jaxlm.config.errors import UsageError

KINDS: dict[str, Callable[[argparse.Namespace, dict], Tokenizer]] = {
    "bpe": lambda told, named: SentencePiece("bpe", told.vocab, **named),
    "unigram": lambda told, named: SentencePiece("unigram", told.vocab, **named),
    "wordpiece": lambda told, named: WordPiece(told.vocab, not told.cased, **named),
    "whitespace": lambda told, named: Whitespace(told.vocab, **named),
    "byte": lambda told, named: Bytes(**named),
}


def parse(argv: list[str]) -> tuple[Tokenizer, TextFiles, Path]:
    """What to train, on what, and where to write it. Raises UsageError."""
    if argv[:1] != ["train"]:
        raise UsageError("expected: jaxlm tokenizer train [FILE ...] --kind KIND --out DIR")
    parser = Parser(prog="jaxlm tokenizer", add_help=False, allow_abbrev=False)
    parser.add_argument("files", metavar="FILE", nargs="*")
    parser.add_argument("--kind", choices=KINDS, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--vocab", type=int, default=8192)
    parser.add_argument("--special", nargs="+", action="extend", default=[])
    parser.add_argument("--sentinels", type=int, default=0)
    parser.add_argument("--cased", action="store_true")
    told = parser.parse_intermixed_args(argv[1:])
    for name in ("vocab", "sentinels"):
        if getattr(told, name) < (name == "vocab"):
            raise UsageError(f"--{name} {getattr(told, name)}: expected {int(name == 'vocab')} or more")
    if told.kind != "byte" and not told.files:
        raise UsageError(f"--kind {told.kind} learns from text: name files")
    if told.out.exists():
        raise UsageError(f"--out {told.out}: it is there already")
    named = {"special": tuple(told.special), "sentinels": told.sentinels}
    return KINDS[told.kind](told, named), TextFiles(tuple(told.files)), told.out


def main(argv: list[str]) -> int:
    """Trains, writes, and prints what became of the text. Returns the exit code."""
    config, source, out = parse(argv)
    from jaxlm.data.learn import learn, summary

    texts, tokenizer, remark = learn(config, source, out)
    for line in summary(tokenizer, texts):
        print(line)
    print(f"wrote {out}" + (f": {remark}" if remark else ""))
    return 0
