"""Samples: every token shaded by how much it surprised the model."""

from __future__ import annotations

import math
import re
from typing import Any

from jaxlm.runs.report.content import Content, Record
from jaxlm.runs.report.text import number, percent, plural, text

BYTES = 400_000
"""Most HTML that samples may take."""
SHADES = 7
"""Bits of surprise a shade each; the last holds all from there on."""
SPACE = "▁"
"""What SentencePiece writes for a space."""


def samples(content: Content) -> str:
    """The section; empty if the run has no samples."""
    articles, size = [], 0
    for one in content.samples:
        article = _sample(one, BYTES - size)
        size += len(article.encode())
        articles.append(article)
        if size >= BYTES:
            break
    if not articles:
        return ""
    left = len(content.samples) - len(articles)
    more = f'<p class="small">{plural(left, "more sample")} in samples.json.</p>' if left else ""
    temperature = content.experiment.samples.temperature
    return (
        f"<section><h2>Samples <small>at temperature {temperature:g}</small></h2>{_key()}"
        f"{''.join(articles)}{more}</section>"
    )


def _key() -> str:
    shades = "".join(f'<span class="s{i}">{i}{"+" if i == SHADES else ""}</span>' for i in range(1, SHADES + 1))
    return (
        '<p class="small shades"><span class="prompt">prompt</span> then what the model wrote, shaded by surprise '
        f"in bits, −log<sub>2</sub> of the probability: {shades} Point at a token for its probability.</p>"
    )


def _sample(sample: Record, budget: int) -> str:
    pieces = [one if isinstance(one, str) else str(one) for one in _list(sample.get("tokens"))]
    prompt = sample.get("prompt") if isinstance(sample.get("prompt"), str) else ""
    written = sample.get("text") if isinstance(sample.get("text"), str) else ""
    whole = written if written.startswith(prompt) else prompt + written
    if not pieces:
        tail = text(whole[len(prompt) :], 20_000)
        return f'<div class="sample"><span class="prompt">{text(prompt, 5000)}</span>{tail}</div>'
    scores = _list(sample.get("log_probabilities"))
    scores = [number(one) for one in scores[: len(pieces)]] + [None] * (len(pieces) - len(scores))
    shown = pieces if "".join(pieces) in (whole, written) else [_readable(one) for one in pieces]
    spans, surprises, at, size = [], [], 0, 0
    # a tokenizer may put a space before the first word that the prompt does not have
    slack = len(shown[0]) - len(shown[0].lstrip()) if not prompt.startswith(shown[0][:1]) else 0
    for raw, piece, score in zip(pieces, shown, scores):
        given = at < len(prompt) + slack
        at += len(piece)
        if score is not None and not given:
            surprises.append(-score / math.log(2))
        spans.append(_token(raw, piece, score, given))
        size += len(spans[-1].encode())
        if size > budget:
            spans.append(f" … {plural(len(pieces) - len(spans), 'more token')}")
            break
    mean = sum(surprises) / len(surprises) if surprises else None
    note = plural(len(surprises), "token") + (f", {mean:.2f} bits each" if mean is not None else "")
    return f'<div class="sample">{"".join(spans)}</div><p class="small tail">{note}</p>'


def _token(raw: str, piece: str, score: float | None, given: bool) -> str:
    if score is None:
        shade, hint = "", "no probability recorded"
    else:
        bits = max(-score / math.log(2), 0.0)
        shade = f"s{min(int(bits), SHADES)}" if bits >= 1 else ""
        hint = f"{percent(math.exp(min(score, 0.0)))}, {bits:.1f} bits"
        hint = re.sub("<sup>(.*?)</sup>", r"^\1", hint)
    classes = " ".join(one for one in ("prompt" if given else "", shade) if one)
    name = text(raw.replace("\n", "↵").replace("\t", "⇥"), 60)
    # the marks are drawn by the style sheet, so that copied text is the text
    body = text(piece, 500).replace("\n", '<i class="newline"></i>\n').replace("\t", '<i class="tab"></i>\t')
    attribute = f' class="{classes}"' if classes else ""
    return f'<span{attribute} title="‘{name}’ {hint}">{body}</span>'


def _readable(piece: str) -> str:
    """A SentencePiece piece as the text it stands for."""
    if match := re.fullmatch(r"<0x([0-9A-Fa-f]{2})>", piece):
        return bytes([int(match[1], 16)]).decode("utf-8", "replace")
    return piece.replace(SPACE, " ")


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
