"""A model becomes a run once; another model of the same name does not pass for it."""

import json

import pytest

from jaxlm import config
from jaxlm.config.errors import Failure
from jaxlm.interop import exchange
from jaxlm.interop.imported import bring
from tests.tiny import random_model
from tests.tokenizers import trained

BLOCK = config.Block(config.Attention(heads=2, kv_heads=1, head=8), config.Gated(24))
KIND = config.Decoder(vocab=460, embed=16, layers=1, block=BLOCK)


def test_a_changed_model_is_not_taken_for_the_old(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = {one.name: one.read_bytes() for one in trained.write("byte_bpe", tmp_path / "files").iterdir()}
    exchange.save(KIND, random_model(KIND), tmp_path / "small", length=64, files=files)
    run = bring(tmp_path / "small")
    assert bring(tmp_path / "small") == run
    settings = tmp_path / "small/config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"transformers_version": "0"}))
    with pytest.raises(Failure, match=r"small has changed since it became runs/small-\w+: import it under another"):
        bring(tmp_path / "small")
    assert bring(tmp_path / "small", "new") == "new"
