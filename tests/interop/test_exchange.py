"""Models of transformers in several files and on a mesh, and what is not right with them."""

import contextlib
import dataclasses
import json

import jax
import numpy as np
import pytest

from jaxlm import config
from jaxlm.config.errors import Failure, UsageError
from jaxlm.families import known
from jaxlm.interop import exchange, safetensors
from jaxlm.layers.axes import shardings
from jaxlm.parallel.layout import single_device
from tests.interop.cases import CASES
from tests.tiny import KINDS, layout

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")


def test_several_files(published, tmp_path, monkeypatch):
    directory, reference = published("llama")
    told, model = exchange.load(directory, single_device())
    monkeypatch.setattr(safetensors, "SHARD", 40_000)
    exchange.save(told, model, tmp_path / "out", length=128)
    files = sorted(one.name for one in (tmp_path / "out").iterdir())
    assert files[0] == "config.json"
    assert sum(name.startswith("model-") for name in files) > 3
    assert safetensors.INDEX in files
    assert not [name for name in files if name.endswith(".tmp")]
    assert len({one.stat().st_mode for one in (tmp_path / "out").iterdir()}) == 1, "all may be read by the same"
    jax.tree.map(np.testing.assert_array_equal, exchange.load(tmp_path / "out", single_device())[1], model)
    again = type(reference).from_pretrained(tmp_path / "out")
    assert all(torch.equal(one, again.state_dict()[name]) for name, one in reference.state_dict().items())


@pytest.mark.parametrize("case", ["llama, yarn", "gpt2", "mixtral"])
def test_onto_a_mesh(published, case):
    """Every parameter lies where the layout stores it; a vocabulary that does not divide is named."""
    directory, _ = published(case)
    _, model = exchange.load(directory, single_device())
    where = layout(fsdp=8)
    _, spread = exchange.load(directory, where)
    jax.tree.map(np.testing.assert_array_equal, spread, model)
    assert jax.tree.map(lambda x: x.sharding, spread) == shardings(model, where)
    with pytest.raises(UsageError, match="dimension 71"):
        exchange.load(directory, layout(fsdp=2, tensor=2))


# --- what is not right -------------------------------------------------------------------------------------


@pytest.fixture
def broken(published, tmp_path):
    """`broken(file, change)`: a copy of the small LLaMA with a file changed as bytes."""

    def make(name, change):
        directory = tmp_path / "broken"
        directory.mkdir()
        for one in published("llama")[0].iterdir():
            data = one.read_bytes()
            (directory / one.name).write_bytes(change(data) if one.name == name else data)
        return directory

    return make


@pytest.mark.parametrize(
    ("case", "changes", "message"),
    [
        ("opt", {"do_layer_norm_before": False}, "do_layer_norm_before is False, and only True is known"),
        ("falcon", {"num_ln_in_parallel_attn": 2}, "num_ln_in_parallel_attn is 2, and only None or 1 is known"),
        ("bloom", {"apply_residual_connection_post_layernorm": True}, "post_layernorm is True, and only False"),
        ("bloom", {"n_layer": None}, "config.json has no 'n_layer'"),
        ("qwen3", {"use_sliding_window": True}, "use_sliding_window is True, and only False"),
        ("qwen3-moe", {"mlp_only_layers": [1]}, r"mlp_only_layers is \[1\], and only None or \[\]"),
        ("gemma", {"hidden_act": "relu"}, "hidden_act is 'relu', and only 'gelu' or 'gelu_pytorch_tanh'"),
        ("gemma2", {"layer_types": ["full_attention"] * 4}, "layer_types is .*, and only None or"),
        ("gemma2", {"num_hidden_layers": 3, "layer_types": None}, "num_hidden_layers is 3, and only even"),
        ("gemma3", {"attn_logit_softcapping": 5.0}, "attn_logit_softcapping is 5.0, and only None"),
        ("gemma3", {"layer_types": ["full_attention", *["sliding_attention"] * 4]}, "layer_types is .*, and only"),
        ("opt", {"word_embed_proj_dim": 24}, "word_embed_proj_dim is 24, and only 48 or None is known"),
    ],
)
def test_what_a_family_does_not_have_here_is_named(published, case, changes, message):
    told = json.loads((published(case)[0] / "config.json").read_text())
    with pytest.raises(Failure, match=message):
        exchange.family(told["model_type"]).read(told | changes)


def settings(**changes):
    return lambda data: json.dumps(json.loads(data) | changes).encode()


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("config.json", settings(model_type="lama"), "model_type 'lama' is not known here; nearest first: llama"),
        ("config.json", settings(logit_scale=2.0), "settings that are not known here: logit_scale"),
        ("config.json", settings(hidden_act="gelu"), "hidden_act is 'gelu', and only 'silu' is known"),
        ("config.json", settings(rope_parameters={"rope_type": "longrope"}), "rope_type is 'longrope'"),
        ("config.json", settings(model_type="mistral"), "config.json has no 'sliding_window'"),
        ("config.json", settings(intermediate_size=57), r"mlp.up_proj.weight is \(56, 48\), not \(57, 48\)"),
        ("config.json", settings(num_hidden_layers=4), r"missing model.layers.3.mlp.down_proj.weight"),
        ("config.json", settings(num_hidden_layers=2), r"unexpected model.layers.2.mlp.down_proj.weight"),
        ("config.json", lambda data: data[:40], "it is no JSON object"),
        ("config.json", lambda data: b'{"model_type": "llama"}', "config.json has no 'intermediate_size'"),
        ("model.safetensors", lambda data: data[:-9], "is damaged or no safetensors file"),
        ("model.safetensors", lambda data: data[:100], "is damaged or no safetensors file"),
        ("model.safetensors", lambda data: b"\xff" * 8 + data[8:], "is damaged or no safetensors file"),
        ("model.safetensors", lambda data: data.replace(b'"F32"', b'"I32"'), "is I32, and weights are F64, F32"),
    ],
)
def test_what_is_wrong_is_named(broken, name, change, message):
    with pytest.raises(Failure, match=message):
        exchange.load(broken(name, change), single_device())


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (b"{", "has no map from tensors to files"),
        (b'{"weight_map": {"a": "../a.safetensors"}}', "names '../a.safetensors', which is not a file beside it"),
        (b'{"weight_map": {"a": "a.safetensors"}}', "names a.safetensors, which is not there"),
        (b'{"weight_map": {"a": "model.safetensors"}}', "does not hold a, which"),
    ],
)
def test_an_index_is_not_believed(published, tmp_path, index, message):
    directory, _ = published("llama")
    for one in directory.iterdir():
        (tmp_path / one.name).write_bytes(one.read_bytes())
    (tmp_path / safetensors.INDEX).write_bytes(index)
    with pytest.raises(Failure, match=message):
        exchange.load(tmp_path, single_device())


def test_nothing_is_overwritten_or_half_written(published, tmp_path, monkeypatch):
    directory, _ = published("llama")
    told, model = exchange.load(directory, single_device())
    with pytest.raises(UsageError, match="is there already"):
        exchange.save(told, model, directory, length=128)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safetensors, "save_file", full)
    with pytest.raises(Failure, match=r"cannot write .*: No space left on device"):
        exchange.save(told, model, tmp_path / "out", length=128)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"position": config.Alibi()}, "this model is no LLaMA: .*\n.*no Qwen2.*\n.*no Phi-3.*\n.*no GPT-2"),
        ({"norm": config.LayerNorm()}, "this model is no LLaMA"),
        ({"position": config.Rope(pairs="interleaved")}, "this model is no LLaMA"),
        ({"head": config.Tied(softcap=5.0)}, "this model is no LLaMA"),
        ({"block": config.Pattern((config.Block(),))}, "this model is no LLaMA"),
    ],
)
def test_what_no_family_has_is_refused(published, tmp_path, changes, message):
    told, model = exchange.load(published("llama")[0], single_device())
    with pytest.raises(UsageError, match=message):
        exchange.save(dataclasses.replace(told, **changes), model, tmp_path / "x", length=128)
    with pytest.raises(UsageError, match="Rwkv7: of all models only transformers and RWKV-4 are exchanged"):
        exchange.save(config.Rwkv7(), model, tmp_path / "x", length=128)
    with pytest.raises(UsageError, match="model_type 'llama' has no rwkv4s"):
        exchange.save(config.Rwkv4(), model, tmp_path / "x", length=128, model_type="llama")
    with pytest.raises(UsageError, match="this RWKV-4 is not transformers'"):
        exchange.save(config.Rwkv4(head=config.Untied(bias="all")), model, tmp_path / "x", length=128)
    assert not (tmp_path / "x").exists()


def test_every_family_answers(published):
    """Whatever a decoder is made of, a family has it or says that it is none of its own."""
    told = [json.loads((published(case)[0] / "config.json").read_text()) for case in CASES]
    models = [(one["model_type"], known.family(one["model_type"]).read(one)) for one in told]
    models += [("", KINDS["decoder"]), ("", KINDS["wired"])]
    models += [("", config.Decoder(layers=1, block=config.Pattern((), (config.Block(),))))]
    for own, model in models:
        found = {""}
        for one in known.families(model):
            with contextlib.suppress(UsageError):
                found.add(one.write(model, 64)["model_type"])
        assert own in found
        assert own or found == {""}


@pytest.mark.parametrize("case", ["gpt2", "opt"])
def test_positions_do_not_grow(published, tmp_path, case):
    told, model = exchange.load(published(case)[0], single_device())
    with pytest.raises(UsageError, match="rows of 129 tokens: this model has 128 positions"):
        exchange.save(told, model, tmp_path / "x", length=129)


def test_a_parameter_without_a_place_is_an_error_of_the_table(published):
    directory, _ = published("llama")
    _, model = exchange.load(directory, single_device())
    table = tuple(one for one in exchange.family("llama").TABLE if "norm" not in one.name)
    with pytest.raises(ValueError, match=r"disagree on .*attention_norm.scale"):
        exchange.correspondence(table, model)
