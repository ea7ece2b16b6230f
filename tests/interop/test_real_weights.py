"""A published model comes in, goes out, and says the same in transformers."""

import re

import pytest

from jaxlm.config.sampling import Options
from jaxlm.interop.export import export
from jaxlm.interop.imported import bring
from jaxlm.sampling.text import sample_with_log_probabilities
from jaxlm.train.load import load_run
from tests.interop import ggufs

PROMPTS = ("The capital of France is", "def fibonacci(n):", "Once upon a time, in a village by the sea,")
TOKENS = 48
TEXTS = (
    *PROMPTS,
    "  two spaces, 12345 numbers,\ttabs\nand lines\n\n",
    "日本語のテキスト、絵文字 👩‍👩‍👧 and ﬁnal ligatures",
    "naïve café – “quotes” … 3.14e-5 == x[:, None]",
    "",
)


@pytest.mark.nightly
def test_transformers_says_the_same(tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    run, out = bring(ggufs.published(), str(tmp_path / "run")), tmp_path / "out"
    assert "config.json (llama), safetensors, tokenizer.json" in export(run, out)
    model, tokenizer, call = load_run(run)
    ours = sample_with_log_probabilities(model, tokenizer, PROMPTS, Options(temperature=0.0, tokens=TOKENS), call)
    theirs = transformers.AutoTokenizer.from_pretrained(out)
    for text in TEXTS:
        assert theirs(text).input_ids == [tokenizer.bos, *tokenizer.encode(text).tolist()]
    reference = transformers.AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    for sample in ours:
        inputs = theirs(sample.prompt, return_tensors="pt")
        with torch.no_grad():
            whole = reference.generate(**inputs, max_new_tokens=TOKENS, do_sample=False)[0]
        wanted = whole[inputs.input_ids.shape[1] :].tolist()
        assert sample.ids == wanted
        assert len(wanted) == TOKENS or wanted[-1] == tokenizer.eos
        assert sample.text == theirs.decode(wanted, skip_special_tokens=True)
    assert sum(len(sample.ids) for sample in ours) >= 64
    assert re.match(" Paris", ours[0].text)
