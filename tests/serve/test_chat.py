"""A conversation on the command line, from a directory as others keep models."""

import io
import json

import jax
import numpy as np
import pytest

from jaxlm import config
from jaxlm.cli import main
from jaxlm.config.sampling import Options
from jaxlm.interop import exchange
from jaxlm.interop.imported import bring
from jaxlm.serve.chat import open_chat
from jaxlm.tokenizers import given
from jaxlm.tokenizers.conversation import encode
from tests.tiny import CALL, random_model, tokens
from tests.tokenizers import trained

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ m.role + ': ' + m.content + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
BLOCK = config.Block(config.Attention(heads=2, kv_heads=1, head=8), config.Gated(24))
KIND = config.Decoder(vocab=460, embed=16, layers=2, block=BLOCK)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """(Directory, tokenizer, model)."""
    path = tmp_path_factory.mktemp("model") / "small"
    files = trained.write("byte_bpe", path.parent / "files", chat_template=TEMPLATE)
    found = random_model(KIND, std=1.0)  # what it says depends on all it has heard
    contents = {one.name: one.read_bytes() for one in files.iterdir()}
    exchange.save(KIND, found, path, length=512, files=contents)
    return path, given(config.TokenizerJson(str(files))), found


def greedy(model, tokenizer, messages, count):
    """The likeliest tokens, each by the whole forward pass, and their text."""
    ids = encode(tokenizer, messages, generation=True).ids.tolist()
    stop, said = tokenizer.library.token_to_id("<|eot_id|>"), []
    forward = jax.jit(lambda m, x: m.logits(m(x, CALL).hidden, CALL))
    while len(said) < count and (not said or said[-1] != stop):
        padded = [*ids, *said, *[0] * (128 - len(ids) - len(said))]
        row = np.asarray(forward(model, tokens(np.array([padded]))))[0, len(ids) + len(said) - 1]
        said.append(int(row.argmax()))
    return tokenizer.decode([token for token in said if token != stop])


def talk(monkeypatch, capsys, directory, lines, *words):
    monkeypatch.setattr("sys.stdin", io.StringIO(lines))
    assert main(["chat", str(directory), "--temperature", "0", "--tokens", "6", *words]) == 0
    return capsys.readouterr().out


def test_each_answer_follows_all_before_it(model, monkeypatch, capsys, tmp_path):
    directory, tokenizer, found = model
    monkeypatch.chdir(tmp_path)
    asked = ["The quick fox?", "And <|eot_id|> then?"]
    messages, wanted = [{"role": "system", "content": "Be brief."}], []
    for text in asked:
        messages.append({"role": "user", "content": text})
        wanted.append(greedy(found, tokenizer, messages, 6))
        messages.append({"role": "assistant", "content": wanted[-1]})
    said = talk(monkeypatch, capsys, directory, "\n".join(asked) + "\n", "--system", "Be brief.")
    assert said == "".join(f"{one}\n" for one in wanted)
    assert wanted[1] != greedy(found, tokenizer, messages[1:4], 6), "otherwise instructions may be forgotten"
    # An empty line forgets; one question is the beginning of such a conversation.
    alone = greedy(found, tokenizer, [{"role": "user", "content": asked[1]}], 6)
    assert talk(monkeypatch, capsys, directory, f"{asked[0]}\n\n{asked[1]}\n").endswith(f"{alone}\n")
    assert talk(monkeypatch, capsys, directory, "", "--prompt", asked[1]) == f"{alone}\n"
    assert len(list((tmp_path / "runs").iterdir())) == 1, "imported once"


def test_an_answer_ends_where_the_template_ends_it(model, monkeypatch, tmp_path):
    directory, tokenizer, _ = model
    monkeypatch.chdir(tmp_path)
    chat = open_chat(bring(directory), Options())
    assert chat.stop == tokenizer.library.token_to_id("<|eot_id|>") != tokenizer.eos


def test_refusals(model, monkeypatch, capsys, tmp_path):
    directory, _, found = model
    monkeypatch.chdir(tmp_path)
    assert main(["chat", "nowhere"]) == 2
    assert main(["chat", str(directory), "--tokens", "0"]) == 2
    assert main(["chat", str(directory), "--samples", "2"]) == 2
    assert "jaxlm chat --help tells more" in capsys.readouterr().err
    mute = tmp_path / "mute"
    contents = {one.name: one.read_bytes() for one in trained.write("byte_bpe", tmp_path / "files").iterdir()}
    exchange.save(KIND, found, mute, length=512, files=contents)
    assert main(["chat", str(mute), "--prompt", "hi"]) == 2
    assert "its tokenizer has no chat template" in capsys.readouterr().err
    raising = tmp_path / "raising"
    told = json.loads(contents["tokenizer_config.json"]) | {"chat_template": "{{ raise_exception('never') }}"}
    contents["tokenizer_config.json"] = json.dumps(told).encode()
    exchange.save(KIND, found, raising, length=512, files=contents)
    assert main(["chat", str(raising), "--prompt", "hi"]) == 1
    assert "the chat template refuses these messages: never" in capsys.readouterr().err
