"""Adapters that PEFT wrote compute here what they compute there, and the reverse."""

import copy
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm import config
from jaxlm.adapters.attach import merged
from jaxlm.adapters.build import adapted, trained
from jaxlm.config.errors import Failure, UsageError
from jaxlm.interop import exchange, peft_export
from jaxlm.interop import peft as ours
from jaxlm.layers.names import flatten, map_named, partition
from jaxlm.parallel.layout import single_device

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
peft = pytest.importorskip("peft")
TOLERANCE = 1e-5
"""Of max(1, standard deviation of the logits); what is wrong is off by more than 100 times that."""
LLAMA = ["q_proj", "v_proj", "o_proj", "down_proj"]
GPT2 = ["c_attn", "c_fc", "attn.c_proj"]
BERT = ["query", "value", "attention.output.dense"]
LORA = {"r": 4, "lora_alpha": 6}


def lora(targets, **more):
    return lambda: peft.LoraConfig(**{**LORA, "target_modules": targets, **more})


THEIRS = {
    "llama, lora": ("llama", lora(LLAMA)),
    "llama, rslora": ("llama", lora(LLAMA, use_rslora=True)),
    "llama, dora": ("llama", lora(LLAMA, use_dora=True)),
    "llama, ranks": ("llama", lora(LLAMA, rank_pattern={"v_proj": 2}, alpha_pattern={r"layers\.1\..*o_proj": 3})),
    "llama, some layers": ("llama", lora(["q_proj", "up_proj"], layers_to_transform=[0, 2], use_dora=True)),
    "llama, head": ("llama", lora(["k_proj", "lm_head"])),
    "llama, vera": ("llama", lambda: peft.VeraConfig(r=5, target_modules=["q_proj", "o_proj", "down_proj"])),
    "llama, ia3": (
        "llama",
        lambda: peft.IA3Config(target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"]),
    ),
    "llama, biases, dora": ("llama, tied, biases", lora([*LLAMA, "k_proj"], use_dora=True)),
    "llama, biases, ia3": (
        "llama, tied, biases",
        lambda: peft.IA3Config(target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"]),
    ),
    "gpt2, lora": ("gpt2", lora(GPT2, fan_in_fan_out=True)),
    "gpt2, dora": ("gpt2", lora(GPT2, fan_in_fan_out=True, use_dora=True)),
    "gpt2, vera": ("gpt2", lambda: peft.VeraConfig(r=5, target_modules=["c_attn", "c_fc"], fan_in_fan_out=True)),
    "gpt2, ia3": (
        "gpt2",
        lambda: peft.IA3Config(
            target_modules=["c_attn", "mlp.c_proj"], feedforward_modules=["mlp.c_proj"], fan_in_fan_out=True
        ),
    ),
    "bert, lora": ("bert", lora(BERT)),
    "bert, dora": ("bert", lora(BERT, use_dora=True)),
    "bert, vera": ("bert", lambda: peft.VeraConfig(r=5, target_modules=["query", "key"])),
    "bert, ia3": (
        "bert",
        lambda: peft.IA3Config(
            target_modules=["key", "value", "output.dense"], feedforward_modules=["output.dense"]
        ),
    ),
    "bert, classifier": ("bert, sequences", lora(BERT, modules_to_save=["classifier"])),
    "bert, hidden states": ("bert, hidden states", lora(BERT)),
    "gpt-neox, lora": ("gpt-neox", lora(["query_key_value", "dense_h_to_4h"])),
    "phi3, dora": ("phi3", lora(["qkv_proj", "gate_up_proj"], use_dora=True)),
    "falcon, lora": ("falcon, grouped", lora(["query_key_value"])),
    "t5, lora": ("t5", lora(["q", "v", "wo"])),
    "albert, lora": ("albert", lora(["query", "ffn"])),
}
ORDINARY = ("llama, dora", "llama, vera", "llama, biases, ia3", "gpt2, dora", "bert, classifier")


def some(names, ordinary):
    return [pytest.param(name, marks=() if name in ordinary else pytest.mark.nightly) for name in names]


def random(model, seed=0):
    """Every parameter of the adapters random."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                center = 1.0 if "ia3" in name or "magnitude" in name else 0.0
                size = 0.5 if "vera" in name else 0.2
                parameter.copy_(center + size * torch.randn(parameter.shape, generator=generator))
    return model.eval()


@pytest.fixture(scope="module")
def halved(published, tmp_path_factory):
    """`halved(case)`: (directory, the reference) with matrices of half the size.

    Of the larger ones rounding alone makes logits 1.7e-5 different, without any adapter.
    """
    made = {}

    def make(case):
        if case not in made:
            reference = copy.deepcopy(published(case)[1])
            with torch.no_grad():
                for parameter in reference.parameters():
                    parameter.mul_(0.5 if parameter.ndim > 1 else 1.0)
            directory = tmp_path_factory.mktemp("halved")
            reference.save_pretrained(directory)
            made[case] = directory, reference
        return made[case]

    return make


def tuned(halved, case, kind):
    """(our model, its config, PEFT's model with random adapters, PEFT's logits)."""
    directory, reference = halved(case)
    told, model = exchange.load(directory, single_device())
    with_adapter = random(peft.get_peft_model(copy.deepcopy(reference), kind))
    return model, told, with_adapter, wanted_of(with_adapter, told)


def wanted_of(theirs, told):
    """PEFT's logits, computed in float64: in float32 it is itself 1e-5 off."""
    from tests.interop import references

    return references.theirs(copy.deepcopy(theirs.base_model.model).double(), told.vocab)


def scores(model, told):
    from tests.interop import references

    return references.ours(model, told.vocab)


def model_type(directory):
    return json.loads((directory / "config.json").read_text())["model_type"]


@pytest.mark.parametrize("name", some(THEIRS, ORDINARY))
def test_theirs_here(halved, tmp_path, name):
    case, kind = THEIRS[name]
    model, told, theirs, wanted = tuned(halved, case, kind())
    theirs.save_pretrained(tmp_path / "adapter")
    family = model_type(halved(case)[0])
    adapter, got = ours.read(tmp_path / "adapter", told, model, family)
    unit = max(1.0, float(np.std(wanted)))
    assert np.abs(scores(got, told) - wanted).max() <= TOLERANCE * unit
    assert np.abs(scores(model, told) - wanted).max() > 100 * TOLERANCE * unit
    template = jax.eval_shape(lambda: adapted(model, adapter, jax.random.key(0)))
    own = flatten(partition(got, trained(adapter))[0])
    assert {n: x.shape for n, x in own.items()} == {
        n: x.shape for n, x in flatten(template).items() if trained(adapter)(n, x)
    }
    # And back: what is written is what PEFT had.
    if "layers" in name or "ranks" in name:
        return  # written with the same shape in all layers
    peft_export.write(tmp_path / "back", told, got, adapter, length=128, model_type=family)
    again = peft.PeftModel.from_pretrained(copy.deepcopy(halved(case)[1]), tmp_path / "back").eval()
    before, after = (peft.get_peft_model_state_dict(one) for one in (theirs, again))
    assert before.keys() == after.keys()
    for key, tensor in before.items():
        np.testing.assert_allclose(after[key].numpy(), tensor.numpy(), rtol=1e-6, err_msg=key)


OURS = {
    "llama, lora": ("llama", config.Lora(rank=3, alpha=2.0)),
    "llama, rslora": ("llama", config.Lora(rank=3, alpha=5.0, scaling="root", targets=r"\.(value|out|down)$")),
    "llama, dora": ("llama", config.Dora(rank=3, alpha=5.0)),
    "llama, vera": ("llama", config.Vera(rank=5)),
    "llama, ia3": ("llama", config.Ia3()),
    "gpt2, lora": ("gpt2", config.Lora(rank=3, alpha=5.0)),
    "gpt2, one of three": ("gpt2", config.Lora(rank=3, alpha=5.0, targets=r"\.(query|value|up)$")),
    "gpt2, dora": ("gpt2", config.Dora(rank=3, alpha=5.0, scaling="root")),
    "gpt2, ia3": ("gpt2", config.Ia3()),
    "bert, lora": ("bert, sequences", config.Lora(rank=3, alpha=5.0)),
    "bert, dora": ("bert", config.Dora(rank=3, alpha=5.0)),
    "bert, vera": ("bert", config.Vera(rank=5)),
    "bert, ia3": ("bert", config.Ia3()),
    "bert, hidden states": ("bert, hidden states", config.Lora(rank=3, alpha=5.0)),
    "bert, hidden states, two words": (
        "bert, hidden states",
        config.Lora(rank=3, alpha=5.0, targets=r"^blocks\.period\.0\.attention\.out$"),
    ),
    "t5, lora": ("t5", config.Lora(rank=3, alpha=5.0)),
    "phi3, lora": ("phi3", config.Lora(rank=3, alpha=5.0)),
}
ORDINARY = ("llama, rslora", "gpt2, one of three", "bert, ia3")


def moved(model, adapter, seed=0):
    rng = np.random.default_rng(seed)
    chosen = trained(adapter)
    size = 0.5 if isinstance(adapter, config.Vera) else 0.2

    def one(name, leaf):
        if not chosen(name, leaf):
            return leaf
        return leaf + size * jnp.asarray(rng.standard_normal(leaf.shape), leaf.dtype)

    return map_named(one, model)


@pytest.mark.parametrize("name", some(OURS, ORDINARY))
def test_ours_there(halved, tmp_path, name):
    case, adapter = OURS[name]
    directory, reference = halved(case)
    told, base = exchange.load(directory, single_device())
    model = moved(adapted(base, adapter, jax.random.key(0)), adapter)
    more = {"length": 128, "model_type": model_type(directory), "base": "some/model"}
    peft_export.write(tmp_path / "adapter", told, model, adapter, **more)
    theirs = peft.PeftModel.from_pretrained(copy.deepcopy(reference), tmp_path / "adapter").eval()
    wanted = wanted_of(theirs, told)
    got = scores(model, told)
    unit = max(1.0, float(np.std(wanted)))
    assert np.abs(got - wanted).max() <= TOLERANCE * unit
    assert np.abs(scores(base, told) - wanted).max() > 100 * TOLERANCE * unit
    assert np.abs(scores(merged(model), told) - wanted).max() <= 2 * TOLERANCE * unit
    kept = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert kept["base_model_name_or_path"] == "some/model"
    read, again = ours.read(tmp_path / "adapter", told, base, model_type(directory))
    assert type(read) is type(adapter)
    assert np.abs(scores(again, told) - got).max() <= TOLERANCE * unit


def changed(path, **settings):
    told = json.loads((path / "adapter_config.json").read_text())
    (path / "adapter_config.json").write_text(json.dumps(told | settings))


@pytest.fixture(scope="module")
def written(halved, tmp_path_factory):
    """(directory, our model, its config) of a LoRA that PEFT wrote."""
    model, told, theirs, _ = tuned(halved, "llama", lora(LLAMA)())
    directory = tmp_path_factory.mktemp("adapter")
    theirs.save_pretrained(directory)
    return directory, model, told


@pytest.fixture
def copied(written, tmp_path):
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        (tmp_path / file).write_bytes((written[0] / file).read_bytes())
    return tmp_path


def retensored(path, change):
    from safetensors.numpy import load_file, save_file

    save_file(change(load_file(path / "adapter_model.safetensors")), path / "adapter_model.safetensors")


Q = "base_model.model.model.layers.1.self_attn.q_proj"


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda d: changed(d, peft_type="LOHA"), r"peft_type is 'LOHA', and only LORA, VERA, IA3"),
        (lambda d: changed(d, lora_bias=True), r"lora_bias is True, which is not known here"),
        (lambda d: changed(d, bias="all"), r"bias is 'all'"),
        (lambda d: changed(d, init_lora_weights="pissa"), r"'pissa', which changes the base"),
        (lambda d: changed(d, r=None), r"a setting is missing or of another type"),
        (
            lambda d: changed(d, target_modules=[*LLAMA, "k_proj"]),
            r"missing model.layers.0.self_attn.k_proj.lora_A",
        ),
        (lambda d: changed(d, use_dora=True), r"missing model.layers.0.mlp.down_proj.lora_magnitude_vector"),
        (lambda d: (d / "adapter_config.json").unlink(), r"has no adapter_config.json"),
        (lambda d: (d / "adapter_config.json").write_text("["), r"damaged: it is no JSON"),
        (lambda d: (d / "adapter_model.safetensors").unlink(), r"holds no adapter_model.safetensors"),
        (lambda d: (d / "adapter_model.safetensors").write_bytes(b"x"), r"damaged or no safetensors"),
        (
            lambda d: retensored(d, lambda t: {n: x for n, x in t.items() if n != f"{Q}.lora_B.weight"}),
            r"missing model.layers.1.self_attn.q_proj.lora_B.weight",
        ),
        (
            lambda d: retensored(d, lambda t: t | {f"{Q}.lora_A.weight": np.zeros((4, 40), np.float32)}),
            r"q_proj.lora_A.weight is 4 x 40, and this model needs 4 x 48",
        ),
        (
            lambda d: retensored(d, lambda t: {n.replace("q_proj", "qq_proj"): x for n, x in t.items()}),
            r"no module model.layers.0.self_attn.qq_proj; nearest:\n +model.layers.0.self_attn.q_proj",
        ),
        (
            lambda d: retensored(d, lambda t: {n.replace("lora_A", "lora_embedding_A"): x for n, x in t.items()}),
            r"lora_embedding_A.weight is no tensor of a LORA adapter",
        ),
    ],
)
def test_files_that_do_not_fit(written, copied, damage, said):
    damage(copied)
    with pytest.raises(Failure, match=said):
        ours.read(copied, written[2], written[1])


def test_a_head_of_another_model(halved, tmp_path):
    """PEFT keeps the matrix of an adapted head: then a base that is not the adapter's can be told."""
    model, told, theirs, _ = tuned(halved, "llama", lora(["lm_head"])())
    theirs.save_pretrained(tmp_path)
    ours.read(tmp_path, told, model)
    other = model.replace(head=model.head.replace(kernel=model.head.kernel + 1))
    with pytest.raises(Failure, match=r"lm_head.base_layer.weight is not this model's"):
        ours.read(tmp_path, told, other)


def test_vera_without_its_matrices(halved, tmp_path):
    model, told, theirs, _ = tuned(halved, "llama", peft.VeraConfig(r=5, target_modules=["q_proj"]))
    theirs.peft_config["default"].save_projection = False
    theirs.save_pretrained(tmp_path)
    retensored(tmp_path, lambda t: {n: x for n, x in t.items() if not re.search("vera_[AB]$", n)})
    with pytest.raises(Failure, match="save_projection=True"):
        ours.read(tmp_path, told, model)


def test_what_cannot_be_written(halved, tmp_path):
    directory, _ = halved("gpt2")
    told, base = exchange.load(directory, single_device())
    for adapter, said in [
        (config.Bottleneck(), "bottleneck: PEFT's files are written of lora"),
        (config.Vera(rank=3), "VeRA's matrices of all modules are parts of one in PEFT"),
        (config.Dora(rank=3, targets="query"), "shares a module with weights that do"),
        (config.Lora(rank=3, also="norm"), "trained beside the adapter"),
        (config.Lora(rank=3, targets="embedding"), "embedding is no linear module of gpt2"),
    ]:
        model = adapted(base, adapter, jax.random.key(0))
        with pytest.raises(UsageError, match=said):
            peft_export.write(tmp_path / "out", told, model, adapter, length=128)
    assert not (tmp_path / "out").exists()
    with pytest.raises(UsageError, match="no adapters to write"):
        peft_export.write(tmp_path / "out", told, base, config.Lora(), length=128)
    (tmp_path / "file").write_text("")
    adapter = config.Lora(rank=3)
    with pytest.raises(UsageError, match="is there already"):
        peft_export.write(tmp_path, told, adapted(base, adapter, jax.random.key(0)), adapter, length=128)
