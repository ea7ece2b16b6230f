"""GGUF files, in which llama.cpp keeps a model: its settings, tensors and tokenizer in Hugging Face's terms."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxlm.config.errors import Failure, UsageError

SUFFIX = ".gguf"
FORMATS = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q4_K", "Q6_K")
"""Formats of weights that are read, all into float32."""
OUTSIDE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
INSIDE = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
"""Parts of names, here and in the families that look like LLaMA."""
SETTINGS = {
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "attention.key_length": "head_dim",
    "rope.freq_base": "rope_theta",
}
OPTIONAL = ("attention.head_count_kv", "attention.key_length", "rope.freq_base")
AGREE = {"vocab_size": "vocab_size", "rope.dimension_count": "head_dim", "attention.value_length": "head_dim"}
"""Settings that say again what others say."""
ARCHITECTURE = "llama"
"""The one that is read; also its `model_type`."""
PAIRED = {"attn_q": "num_attention_heads", "attn_k": "num_key_value_heads"}
"""Projections whose features lie in the order of RoPE's pairs -> the setting that counts their heads."""


@dataclass(frozen=True)
class Stored:
    """One tensor as the file has it."""

    data: np.ndarray
    format: Any
    shape: tuple[int, ...]
    paired: str
    """The setting that counts its heads, where features are in the order of pairs."""


class File:
    """A GGUF file: `settings` as of a config.json, tensors read when they are asked for, `fields` of the rest."""

    def __init__(self, path: Path):
        """Reads all but the weights.

        Raises Failure for a file that is missing, damaged, or of an architecture, setting or format that is not
        known.
        """
        self.path, reader = path, _reader(path)
        self.fields: dict[str, Any] = {name: field.contents() for name, field in reader.fields.items()}
        if (kind := self.field("general.architecture")) != ARCHITECTURE:
            raise Failure(f"{path}: no architecture {kind!r} is known here; there is {ARCHITECTURE}")
        self._stored = {}
        for tensor in reader.tensors:
            if tensor.tensor_type.name not in FORMATS:
                raise Failure(f"{path}: {tensor.name} is {tensor.tensor_type.name}; known are {', '.join(FORMATS)}")
            part = tensor.name.split(".")[-2] if "." in tensor.name else ""
            shape = tuple(map(int, reversed(tensor.shape)))
            found = Stored(tensor.data, tensor.tensor_type, shape, PAIRED.get(part, ""))
            self._stored[_name(tensor.name)] = found
        self.shapes = {name: one.shape for name, one in self._stored.items()}
        self.settings = self._settings()

    def field(self, name: str) -> Any:
        """What stands under a name. Raises Failure where nothing does."""
        if name not in self.fields:
            raise Failure(f"{self.path} is damaged: it has no {name}")
        return self.fields[name]

    def read(self, name: str) -> Float[np.ndarray, "..."]:
        """One tensor in float32."""
        from gguf.quants import dequantize

        one = self._stored[name]
        found = np.asarray(dequantize(one.data, one.format), np.float32).reshape(one.shape)
        if not one.paired:
            return found
        heads = self.settings.get(one.paired) or self.settings["num_attention_heads"]
        return _halves(found, heads)

    def _settings(self) -> dict[str, Any]:
        kind = ARCHITECTURE
        given = {name.removeprefix(f"{kind}."): name for name in self.fields if name.startswith(f"{kind}.")}
        if strange := sorted(given.keys() - SETTINGS.keys() - AGREE.keys()):
            raise Failure(f"{self.path}: settings that are not known here: {', '.join(strange)}")
        found = {
            theirs: _decimal(self.field(f"{kind}.{own}"))
            for own, theirs in SETTINGS.items()
            if own in given or own not in OPTIONAL
        }
        rows = self.shapes.get("model.embed_tokens.weight", (0,))[0]
        found |= {
            "vocab_size": rows,
            "model_type": kind,
            "tie_word_embeddings": "lm_head.weight" not in self.shapes,
        }
        head = found.get("head_dim", found["hidden_size"] // found["num_attention_heads"])
        for own, theirs in AGREE.items():
            value = self.fields.get(f"{kind}.{own}")
            if value is not None and value != (expected := {**found, "head_dim": head}[theirs]):
                raise Failure(f"{self.path}: {kind}.{own} is {value}, expected {expected}")
        return found


def _decimal(value: Any) -> Any:
    """A float as it was written before it was rounded to float32: 1e-05, not 9.999999747378752e-06."""
    return float(str(np.float32(value))) if isinstance(value, float) else value


def _reader(path: Path) -> Any:
    from gguf import GGUFReader

    if not path.is_file():
        raise UsageError(f"there is no file {str(path)!r}")
    try:
        return GGUFReader(path)
    except OSError as error:
        raise Failure(f"{path} cannot be read: {error.strerror}") from error
    except (ArithmeticError, LookupError, MemoryError, TypeError, ValueError) as error:
        raise Failure(f"{path} is damaged or no GGUF file: {error}") from error


def _name(theirs: str) -> str:
    """A tensor's name as LLaMA's is in Hugging Face's files; one that is not known stays."""
    if found := re.fullmatch(r"blk\.(\d+)\.(\w+)\.(weight|bias)", theirs):
        part = INSIDE.get(found[2])
        return f"model.layers.{found[1]}.{part}.{found[3]}" if part else theirs
    part, _, kind = theirs.rpartition(".")
    return f"{OUTSIDE[part]}.{kind}" if part in OUTSIDE else theirs


def _halves(x: Float[np.ndarray, "out *inputs"], heads: int) -> Float[np.ndarray, "out *inputs"]:
    """Features of each head from pairs that RoPE turns, one after the other, to first and second halves."""
    pairs = x.reshape(heads, -1, 2, *x.shape[1:])
    return pairs.swapaxes(1, 2).reshape(x.shape)


def opened(path: Path) -> tuple[Mapping[str, Any], File]:
    """Settings and tensors. Raises as `File` does."""
    file = File(path)
    return file.settings, file
