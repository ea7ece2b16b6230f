"""A run with another library's tokenizer needs none of its files afterwards: it speaks and goes out."""

import json
import shutil

import pytest

from tests.drills.drill import end, measured
from tests.tokenizers import trained

TEXT = "abc def"


@pytest.mark.nightly
def test_a_run_keeps_its_tokenizer(ground):
    transformers = pytest.importorskip("transformers")
    template = "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}"
    trained.write("byte_bpe", ground.path / "files", chat_template=template)
    words = ("tokenizer:tokenizer_json", "--tokenizer.path", "files", "--train.steps", "10")
    ground.finish("own", *words, "--model.vocab", "456")
    run = ground.path / "own"
    assert sorted(one.name for one in (run / "tokenizer").iterdir()) == ["tokenizer.json", "tokenizer_config.json"]
    assert measured(run)
    shutil.rmtree(ground.path / "files")
    drawn = end(ground.start("generate", "own", "--prompt", "abc", "--tokens", "4")).expect(0).out
    assert drawn.startswith("abc")
    said = end(ground.start("export", "own", "own-out")).expect(0).out
    assert "safetensors, tokenizer.json, tokenizer_config.json" in said
    theirs = transformers.AutoTokenizer.from_pretrained(ground.path / "own-out")
    kept = transformers.AutoTokenizer.from_pretrained(run / "tokenizer")
    assert theirs(TEXT) == kept(TEXT)
    assert theirs(TEXT)["input_ids"][0] == theirs.bos_token_id
    assert theirs.chat_template == template
    settings = json.loads((ground.path / "own-out/config.json").read_text())
    assert settings["bos_token_id"] == theirs.bos_token_id
    assert settings["eos_token_id"] == theirs.eos_token_id


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("tokenizer:tokenizer_json", "--tokenizer.path", "gone.json"),
            "tokenizer.path: there is no file 'gone.json'",
        ),
        (("tokenizer:gpt2_files",), "tokenizer.path is empty: name the file"),
        (("tokenizer:whitespace",), "model.vocab is 264: the tokenizer has 32000 tokens"),
    ],
)
def test_refused_before_anything_is_read(ground, words, message):
    before = set(ground.path.iterdir())
    process = end(ground.train("refused-tokenizer", *words)).expect(2)
    assert message in process.err
    assert "Traceback" not in process.err
    assert set(ground.path.iterdir()) == before
