"""Models of the literature by name: `model:gemma2-9b` on a command line."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from jaxlm.config.errors import UsageError
from jaxlm.config.experiment import Experiment
from jaxlm.config.model import Model
from jaxlm.config.paths import choices, option_name
from jaxlm.config.suggest import nearest
from jaxlm.families import (
    albert,
    bart,
    bert,
    bloom,
    codegen,
    deberta,
    distilbert,
    electra,
    falcon,
    gemma,
    gemma2,
    gemma3,
    gopher,
    gpt2,
    gpt3,
    gpt_bigcode,
    gpt_neox,
    gptj,
    llama,
    mixtral,
    modernbert,
    mt5,
    olmo2,
    opt,
    palm,
    phi3,
    qwen2,
    qwen3,
    qwen3_moe,
    roberta,
    rwkv,
    starcoder2,
    t5,
)

FAMILIES: dict[str, tuple[Callable[[str], Model], Mapping[str, Any]]] = {
    "albert": (albert.albert, albert.SIZES),
    "bart": (bart.bart, bart.SIZES),
    "bert": (bert.bert, bert.SIZES),
    "bloom": (bloom.bloom, bloom.SIZES),
    "codegen": (codegen.codegen, codegen.SIZES),
    "deberta-v3": (deberta.deberta_v3, deberta.SIZES),
    "electra": (electra.electra, electra.SIZES),
    "falcon": (falcon.falcon, falcon.SIZES),
    "gemma": (gemma.gemma, gemma.SIZES),
    "gemma2": (gemma2.gemma2, gemma2.SIZES),
    "gemma3": (gemma3.gemma3, gemma3.SIZES),
    "gopher": (gopher.gopher, gopher.GOPHER),
    "gpt2": (gpt2.gpt2, gpt2.SIZES),
    "gpt3": (gpt3.gpt3, gpt3.SIZES),
    "llama1": (llama.llama1, llama.LLAMA1),
    "llama2": (llama.llama2, llama.LLAMA2),
    "llama3": (llama.llama3, llama.LLAMA3),
    "llama3.2": (llama.llama32, llama.LLAMA32),
    "mixtral": (mixtral.mixtral, mixtral.SIZES),
    "mt5": (mt5.mt5, mt5.SIZES),
    "modernbert": (modernbert.modernbert, modernbert.SIZES),
    "olmo2": (olmo2.olmo2, olmo2.SIZES),
    "opt": (opt.opt, opt.SIZES),
    "palm": (palm.palm, palm.SIZES),
    "pythia": (gpt_neox.pythia, gpt_neox.PYTHIA),
    "qwen2": (qwen2.qwen2, qwen2.SIZES),
    "qwen3": (qwen3.qwen3, qwen3.SIZES),
    "qwen3-moe": (qwen3_moe.qwen3_moe, qwen3_moe.SIZES),
    "roberta": (roberta.roberta, roberta.SIZES),
    "rwkv4": (rwkv.rwkv4, rwkv.SIZES4),
    "rwkv5": (rwkv.rwkv5, rwkv.SIZES5),
    "rwkv6": (rwkv.rwkv6, rwkv.SIZES6),
    "rwkv7": (rwkv.rwkv7, rwkv.SIZES7),
    "starcoder2": (starcoder2.starcoder2, starcoder2.SIZES),
    "t5": (t5.t5, t5.SIZES),
    "t5.1.1": (t5.t5_1_1, t5.NEWER),
}
"""Family -> its sizes."""

SIZES: dict[str, Callable[[], Model]] = {
    f"{family}-{size}": partial(make, size) for family, (make, sizes) in FAMILIES.items() for size in sizes
} | {
    "chinchilla-70b": gopher.chinchilla_70b,
    "distilbert-base": distilbert.distilbert_base,
    "falcon-rw-1b": falcon.falcon_rw_1b,
    "gpt-j-6b": gptj.gptj_6b,
    "gpt-neox-20b": gpt_neox.gpt_neox_20b,
    "jurassic1-178b": gpt3.jurassic1_178b,
    "minilm-l6": bert.minilm_l6,
    "mistral-7b": llama.mistral_7b,
    "phi3-mini": phi3.phi3_mini,
    "starcoder-15b": gpt_bigcode.starcoder_15b,
}


def size(name: str) -> Model:
    """The model of a name. Raises UsageError that names the nearest."""
    if name not in SIZES:
        found = ", ".join(nearest(name, list(SIZES), 5))
        raise UsageError(f"model:{name}: neither a kind nor a size of the literature; nearest: {found}")
    return SIZES[name]()


def sized(experiment: Experiment, words: Sequence[str]) -> tuple[Experiment, list[str]]:
    """The experiment with the model that a word `model:NAME` asks for, and that name; and the other words, among
    them those that switch to a kind of model.
    """
    kinds = {option_name(cls) for cls in choices(experiment)["model"].classes}
    others = []
    for word in words:
        path, _, name = word.partition(":")
        if path == "model" and name.replace("-", "_").lower() not in kinds:
            experiment = replace(experiment, name=f"{experiment.name}-{name}", model=size(name))
        else:
            others.append(word)
    return experiment, others
