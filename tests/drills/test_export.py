"""A run goes out and computes the same in transformers."""

import json

import jax
import numpy as np
import pytest

from jaxlm.interop import exchange
from jaxlm.layers.names import flatten
from jaxlm.parallel.layout import single_device
from jaxlm.train.load import load_run
from tests.drills.drill import end
from tests.tiny import tokens

IDS = np.random.default_rng(0).integers(4, 260, (2, 32))


def exported(ground, *words, code=0):
    return end(ground.start("export", *words)).expect(code)


def test_a_run_in_transformers(ground, straight):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    run = ground.path / straight()
    said = exported(ground, run.name, "out").out
    assert said == "out: config.json (llama), safetensors, tokenizer.json, tokenizer_config.json\n"
    text = "no <s> in 'a word', 日本 👍🏽"
    tokenizer = transformers.AutoTokenizer.from_pretrained(ground.path / "out", split_special_tokens=True)
    assert tokenizer(text)["input_ids"] == [2, *(4 + byte for byte in text.encode())]
    model, _, call = load_run(str(run))
    ours = jax.jit(lambda m: m.logits(m(tokens(IDS), call).hidden, call))(model)
    reference = transformers.AutoModelForCausalLM.from_pretrained(ground.path / "out").eval()
    with torch.no_grad():
        theirs = reference(torch.tensor(IDS)).logits.numpy()
    assert np.abs(theirs - ours).max() <= 2e-5 * max(1.0, np.std(theirs))
    settings = json.loads((ground.path / "out/config.json").read_text())
    assert {settings[f"{name}_token_id"] for name in ("bos", "eos", "pad")} <= set(range(264))
    told, again = exchange.load(ground.path / "out", single_device())
    jax.tree.map(np.testing.assert_array_equal, flatten(again), flatten(model))
    assert told.vocab == 264


def test_wrong_requests(ground, straight):
    run = straight()
    assert "expected a run and a new directory" in exported(ground, run, code=2).err
    assert "does not exist" in exported(ground, "nothing", "there", code=2).err
    (ground.path / "held").mkdir()
    (ground.path / "held/file").write_text("mine")
    assert "held is there already" in exported(ground, run, "held", code=2).err
    assert [one.name for one in (ground.path / "held").iterdir()] == ["file"]
