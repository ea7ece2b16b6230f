"""What a reader wants first: how good the model is, against what, and what it cost."""

from __future__ import annotations

import math

import numpy as np

from jaxlm.config.data import Conversations
from jaxlm.config.errors import UsageError
from jaxlm.config.flops import flops_of, parameters
from jaxlm.config.objective import Classification, on_labels
from jaxlm.runs.report.content import Content, speed
from jaxlm.runs.report.text import count, duration, number, percent, plural, power, short, text

METHODS = {"unigram": "byte unigram", "gzip": "gzip\u00a0−9", "xz": "xz\u00a0−9"}
ACTIVITIES = {
    "step": "training steps",
    "data": "waiting for data",
    "compile": "compiling",
    "evaluate": "evaluating",
    "checkpoint": "checkpoints",
    "other": "everything else",
}


def header(content: Content) -> str:
    """Name, one line of description and, for a run that is not complete, where it stands."""
    e = content.experiment
    size = _parameters(content)
    parts = [
        type(e.model).__name__,
        f"{count(size)} parameters" if size else "",
        type(e.objective).__name__.lower(),
        type(e.optimizer).__name__,
        e.precision,
        f"seed {e.train.seed}",
    ]
    started = str(next((one.get("started") for one in content.attempts if one.get("started")), ""))[:16]
    parts.append(f"started {started.replace('T', ' ')} UTC" if started else "")
    line = " · ".join(text(part, 80) for part in parts if part)
    return f'<header><h1>{text(e.name, 120)}</h1><p class="muted">{line}</p>{_state(content)}</header>'


def _state(content: Content) -> str:
    if content.complete:
        return ""
    steps = content.experiment.train.steps
    doing = "It was running when this page was written." if content.status == "running" else "It has stopped."
    if content.step == 0:
        words = f"No step has been recorded yet, of {steps:,}. {doing}"
    else:
        words = f"Unfinished: {content.step:,} of {plural(steps, 'step')}. {doing}"
    return f'<p class="notice">{words}</p>'


def verdict(content: Content) -> str:
    """Bits per byte beside what knows no language; where there is none, the newest loss."""
    bits = content.last("bits_per_byte")
    labels = isinstance(on_labels(content.experiment.objective), Classification)
    head = _labels(content) if labels else _headline(content, bits)
    bars = "" if labels else _bars(content, bits)
    return f'<section class="verdict" aria-label="Verdict">{head}{bars}</section>{_facts(content)}'


def _headline(content: Content, bits: float | None) -> str:
    if bits is not None:
        size = number(content.data.get("held_out_bytes"))
        of = f"{count(size)}B of " if size and size >= 10_000 else ""
        what = "answers" if isinstance(content.experiment.data, Conversations) else "text"
        return _big(f"{bits:.3f}", f"bits per byte<br>of {of}held-out {what}", _claim(content, bits))
    held_out, loss = (
        next((value for one in reversed(records) if (value := number(one.get("loss"))) is not None), None)
        for records in (content.evaluate, content.train)
    )
    if held_out is not None:
        return _big(short(held_out), "held-out loss", "")
    if loss is not None:
        return _big(short(loss), "training loss", "Nothing has been measured on held-out text.")
    return _big("–", "nothing measured yet", "")


def _labels(content: Content) -> str:
    """The share of texts whose label is found, beside that of the commonest label."""
    found = next((x for one in reversed(content.evaluate) if (x := number(one.get("accuracy"))) is not None), None)
    if found is None:
        return _headline(content, None)
    counts = [number(one) or 0 for one in (content.data.get("held_out_labels") or {}).values()]
    claim = ""
    if sum(counts):
        texts = f"{sum(counts):,.0f} texts with {plural(len(counts), 'label')}"
        claim = f"Of {texts}; the commonest has <b>{percent(max(counts) / sum(counts))}</b> of them."
    return _big(percent(found), "of held-out texts<br>have the label found", claim)


def _big(value: str, unit: str, claim: str) -> str:
    told = f'<p class="claim">{claim}</p>' if claim else ""
    return f'<div><p class="big">{value}</p><p class="unit">{unit}</p>{told}</div>'


def _claim(content: Content, bits: float) -> str:
    compared = {name: bits / content.baselines[name] - 1 for name in ("gzip", "xz") if content.baselines.get(name)}
    words = [
        f"<b>{percent(abs(gap))}</b> {'below' if gap < 0 else 'above'} {METHODS[name]}"
        for name, gap in compared.items()
    ]
    claim = f"{' and '.join(words)}." if words else ""
    values = [(value, one["step"]) for one in content.evaluate if (value := number(one.get("bits_per_byte")))]
    best, step = min(values, default=(bits, 0))
    if best < bits * 0.9995:
        claim += f" Best was {best:.3f}, after step {step:,}."
    return claim.strip()


def _bars(content: Content, bits: float | None) -> str:
    known = {name: value for name, value in content.baselines.items() if value > 0}
    if not known:
        return ""
    top = max([*known.values(), bits or 0.0])
    rows = [
        _bar(METHODS.get(name, name), value, top, f"{bits / value:.2f}" if bits is not None else "", "")
        for name, value in sorted(known.items(), key=lambda item: -item[1])[:12]
    ]
    rows += [_bar("this model", bits, top, "", ' class="mine"')] if bits is not None else []
    answers = isinstance(content.experiment.data, Conversations)
    seen = "answers alone, the model their prompts too" if answers else "held-out text alone"
    return f"""<div><table class="bars"><thead><tr>
<th scope="col">method</th><td></td><th scope="col">bits / byte</th><th scope="col">model ÷ it</th>
</tr></thead><tbody>{"".join(rows)}</tbody></table>
<p class="small">The compressors see the {seen}; the size of the model is not counted.</p></div>"""


def _bar(name: str, value: float, top: float, ratio: str, attribute: str) -> str:
    width = 100 * value / top if top else 0
    return (
        f'<tr{attribute}><th scope="row">{text(name, 40)}</th>'
        f'<td class="bar"><i style="width:{width:.1f}%"></i></td>'
        f"<td>{value:.3f}</td><td>{ratio}</td></tr>"
    )


def _parameters(content: Content) -> int | None:
    """Parameters by the closed form, which a model of an impossible shape does not have."""
    try:
        return parameters(content.experiment.model)["total"]
    except UsageError:
        return None


def _facts(content: Content) -> str:
    e = content.experiment
    tokens = content.step * e.train.batch * e.train.length
    wall = sum(content.seconds.values())
    facts = [("steps", f"{content.step:,}" + ("" if content.complete else f" of {e.train.steps:,}"))]
    corpus = number(content.data.get("train_tokens"))
    epochs = f"<small>{tokens / corpus:.3g} epochs</small>" if corpus and corpus > 0 else ""
    facts.append(("tokens seen", count(tokens) + epochs))
    if wall:
        tries = len(content.attempts)
        facts.append(("wall time", duration(wall) + (f"<small>in {tries} attempts</small>" if tries > 1 else "")))
    _, rates = speed(content)
    if len(rates):
        facts.append(("tokens per second", f"{count(float(np.median(rates)))}<small>median</small>"))
    if size := _parameters(content):
        facts.append(("parameters", count(size)))
        facts.append(("training compute", f"{power(tokens * _flops(content))} FLOP"))
    entropy = content.last("cross_entropy") if content.evaluate else None
    if entropy is not None and entropy < 700:
        facts.append(("perplexity per token", f"{short(math.exp(entropy))}<small>held out</small>"))
    cells = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts)
    return f'<dl class="facts">{cells}</dl>{_time(content, wall)}'


def _flops(content: Content) -> float:
    return flops_of(content.experiment)["training"]


def _time(content: Content, wall: float) -> str:
    """Where the wall time went: one stacked bar and its key."""
    if not wall:
        return ""
    known = [name for name in ACTIVITIES if name != "other"]
    others = sum(value for name, value in content.seconds.items() if name not in known)
    spent = {name: content.seconds.get(name, 0.0) for name in known} | {"other": others}
    spent = {name: value for name, value in spent.items() if value > 0}
    parts = "".join(
        f'<i class="{name}" style="width:{100 * value / wall:.2f}%" title="{ACTIVITIES[name]}"></i>'
        for name, value in spent.items()
    )
    key = "".join(
        f'<li><i class="{name}"></i>{ACTIVITIES[name]} <b>{duration(value)}</b> '
        f"<small>{percent(value / wall)}</small></li>"
        for name, value in spent.items()
    )
    return (
        f'<section class="time"><h2>Where the time went</h2><div class="stack">{parts}</div>'
        f'<ul class="key">{key}</ul></section>'
    )
