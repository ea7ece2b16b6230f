"""Hugging Face's `tokenizer.json`, with the files beside it that name its special tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jaxlm.config.data import TokenizerJson
from jaxlm.config.errors import Failure, UsageError
from jaxlm.config.special import MASKS
from jaxlm.tokenizers import files
from jaxlm.tokenizers.chat import template_beside
from jaxlm.tokenizers.huggingface import HuggingFaceTokenizer

NAME, SETTINGS, MAP = "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"
ROLES = {"bos": ("bos_token", "cls_token"), "eos": ("eos_token", "sep_token"), "pad": ("pad_token",)}
"""Names of each of our tokens in settings: BERT has others."""


def load(config: TokenizerJson) -> HuggingFaceTokenizer:
    """The tokenizer of a file, or of the `tokenizer.json` of a directory.

    Raises UsageError for a file that is not there, a token that it does not have and one that has to be stated;
    Failure for what is damaged or no tokenizer.
    """
    path = Path(config.path)
    path = path / NAME if config.path and path.is_dir() else path
    described = files.tree(path)
    settings = _settings(path.parent)
    chosen = {}
    for role, names in ROLES.items():
        stated = [getattr(config, role), *(settings.get(name, "") for name in names)]
        chosen[role] = next((token for token in stated if token), "")
    if not (chosen["bos"] and chosen["eos"]):
        stated = {role: token for role, token in chosen.items() if token}
        chosen = dict.fromkeys(ROLES, "") | _around(described, path) | stated
        if chosen["bos"] == chosen["eos"] and "bos" not in stated:  # as `publish` writes it where there is no BOS
            chosen["bos"] = ""
    if not chosen["eos"]:
        raise UsageError(f"{str(path)!r} names no token that ends a text: state one, --tokenizer.eos TOKEN")
    return made(
        described,
        path,
        begin=chosen["bos"],
        end=chosen["eos"],
        padding=chosen["pad"] or chosen["eos"],
        mask_token=settings.get("mask_token", ""),
        template=template_beside(path.parent),
    )


def made(
    described: dict[str, Any],
    path: Path,
    *,
    begin: str,
    end: str,
    padding: str,
    mask_token: str = "",
    template: str = "",
    special: tuple[str, ...] = (),
) -> HuggingFaceTokenizer:
    """The tokenizer of a description, which came from `path`; `special` are more tokens that no text gives.

    Raises as `load` does.
    """
    ids = _ids(described, path)
    for field, token in (("bos", begin), ("eos", end), ("pad", padding)):
        if token and token not in ids:
            raise UsageError(
                f"{str(path)!r} has no token {token!r}, which is to be {field}: state one that it has, "
                f"--tokenizer.{field} TOKEN"
            )
    mask_token = mask_token or next((name for name in MASKS if name in special), "")
    mask_token = mask_token if mask_token in ids else ""
    model = canonical(described, ids, {begin, end, padding, mask_token, *special} - {""})
    tokenizer = HuggingFaceTokenizer(model, begin, end, padding, mask_token, template)
    opened = _opened(model, path)
    for token, number in ids.items():
        if opened.token_to_id(token) != number:
            raise Failure(
                f"{str(path)!r} is damaged: it gives {token!r} the id {number}, which the library reads as "
                f"{opened.token_to_id(token)}"
            )
    return tokenizer


def canonical(described: dict[str, Any], ids: dict[str, int], special: set[str]) -> bytes:
    """A description of the pure map from text to tokens: nothing is put around it, cut off, filled up or drawn by
    chance (BPE dropout), and `special` tokens are special ones.
    """
    added = {one["content"]: one for one in described.get("added_tokens") or []}
    for token in sorted(special, key=ids.__getitem__):
        added[token] = added_token(ids[token], token) | added.get(token, {}) | {"special": True}
    model = described["model"] | ({"dropout": None} if "dropout" in described["model"] else {})
    changed = {
        "version": described.get("version", "1.0"),
        "truncation": None,
        "padding": None,
        "added_tokens": sorted(added.values(), key=lambda one: one["id"]),
        "normalizer": described.get("normalizer"),
        "pre_tokenizer": described.get("pre_tokenizer"),
        "post_processor": None,
        "decoder": described.get("decoder"),
        "model": model,
    }
    return json.dumps(changed, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def added_token(number: int, token: str, special: bool = True) -> dict[str, Any]:
    """A token that is found in a text before its model sees it, as the file has it."""
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": number, "content": token, **plain, "special": special}


def _ids(described: dict[str, Any], path: Path) -> dict[str, int]:
    """Token -> id of the model and the added ones. Raises Failure for a description that is not one."""
    model, added = described.get("model"), described.get("added_tokens") or []
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    try:
        if isinstance(vocabulary, list):  # unigram: pieces with scores
            pieces = [(str(piece), number) for number, (piece, _) in enumerate(vocabulary)]
        else:
            pieces = list(vocabulary.items())
        pieces += [(one["content"], one["id"]) for one in added]
    except (AttributeError, KeyError, TypeError, ValueError):
        raise Failure(f"{str(path)!r} is not a tokenizer: expected a {NAME} with a model's vocabulary") from None
    places: dict[str, int] = {}
    for token, number in pieces:
        if places.setdefault(token, number) != number:
            raise Failure(f"{str(path)!r} is damaged: {token!r} has two ids, {places[token]} and {number}")
    return files.distinct(path, pieces)


def _opened(model: bytes, path: Path) -> Any:
    """The library's tokenizer. Raises Failure with its words."""
    from tokenizers import Tokenizer as Library

    try:
        return Library.from_str(model.decode())
    except Exception as error:  # the library raises no narrower class
        raise Failure(f"{str(path)!r} is not a tokenizer that the library reads: {error}") from None


def _settings(directory: Path) -> dict[str, str]:
    """Special tokens by the names of transformers, of whichever files are there."""
    found: dict[str, str] = {}
    for name in (MAP, SETTINGS):  # the latter wins
        if (directory / name).is_file():
            for key, value in files.tree(directory / name).items():
                content = value.get("content") if isinstance(value, dict) else value
                if key.endswith("_token") and isinstance(content, str) and content:
                    found[key] = content
    return found


def _around(described: dict[str, Any], path: Path) -> dict[str, str]:
    """The tokens that the file's post-processor puts first (`bos`) and last (`eos`)."""
    _ids(described, path)  # says what is wrong in better words than the library
    library = _opened(json.dumps(described).encode(), path)
    library.no_truncation()
    library.no_padding()
    whole, bare = library.encode("a").ids, library.encode("a", add_special_tokens=False).ids
    for start in range(len(whole) - len(bare) + 1):
        if bare and whole[start : start + len(bare)] == bare:
            first = {"bos": library.id_to_token(whole[0])} if start else {}
            last = {"eos": library.id_to_token(whole[-1])} if start + len(bare) < len(whole) else {}
            return first | last
    return {}
