"""A discriminator and its generator beside those of transformers, in training and as files."""

import dataclasses
import functools

import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm import config
from jaxlm.config.codec import what_hash
from jaxlm.config.errors import UsageError
from jaxlm.config.flops import parameters
from jaxlm.config.model import generating
from jaxlm.families import electra
from jaxlm.interop import exchange
from jaxlm.interop.export import export
from jaxlm.layers.names import partition
from jaxlm.runs.directory import open_run
from jaxlm.train.checkpoints import Checkpoints
from jaxlm.train.state import State
from tests.objectives.electra import ELECTRA, MODELS, OBJECTIVE, WIDE, block, drawn, prepared, totals
from tests.tiny import CALL, random_model, tokens

torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")


def test_parameters_are_those_of_transformers():
    """ELECTRA base: a discriminator of 109,483,009 beside a generator of 256 features in 12 layers."""
    beside = config.Generator(
        256, 12, block=dataclasses.replace(block(4, 64), mlp=config.Plain(1024, "gelu", bias="all"))
    )
    kind = dataclasses.replace(electra.electra("base"), generator=beside)
    told = exchange.published(generating(kind), 512)[1]
    with torch.device("meta"):
        reference = transformers.ElectraForMaskedLM(transformers.ElectraConfig(**told))
    tables = sum(one.numel() for one in reference.electra.embeddings.parameters())
    own = sum(one.numel() for one in reference.parameters()) - tables
    assert parameters(kind)["generator"] == own
    assert parameters(kind)["total"] == 109_483_009 + own


@pytest.fixture(scope="module")
def references(tmp_path_factory):
    """`references(kind)`: (ElectraForPreTraining, ElectraForMaskedLM) of its random model, as it is exported."""

    @functools.cache
    def make(name):
        kind, there = MODELS[name], tmp_path_factory.mktemp(name)
        model = random_model(kind)
        assert exchange.save(kind.alone, model.alone, there / "discriminator", length=96) == "electra"
        exchange.save(generating(kind), model.generating, there / "generator", length=96, model_type="electra")
        loaded = transformers.ElectraForPreTraining, transformers.ElectraForMaskedLM
        return tuple(
            one.from_pretrained(there / part, attn_implementation="eager").eval()
            for one, part in zip(loaded, ("discriminator", "generator"))
        )

    return make


@pytest.mark.parametrize(
    "name", ["factorized", *(pytest.param(one, marks=pytest.mark.nightly) for one in ("wide", "equal"))]
)
def test_losses_are_those_of_transformers(references, name):
    discriminator, generator = references(name)
    model, batch = random_model(MODELS[name]), prepared()
    # Every other hidden word is what is drawn for it.
    even = jnp.asarray(np.arange(96) % 2 == 0)[None]
    batch = batch.replace(targets=jnp.where(even, drawn(model, batch), batch.targets))
    real, shown = batch.inputs.segments > 0, drawn(model, batch)
    replaced = (shown != batch.targets) & real
    assert 0.03 < float(replaced.sum() / real.sum()) < 0.3
    tensor = lambda x: torch.tensor(np.asarray(x)).long()  # noqa: E731
    with torch.no_grad():
        seen = tensor(real)
        labels = tensor(np.where(batch.weights > 0, batch.targets, -100))
        masked = generator(tensor(batch.inputs.ids), attention_mask=seen, labels=labels)
        found = discriminator(
            tensor(shown), attention_mask=seen, labels=tensor(replaced), output_hidden_states=True
        )
        # the control: what was drawn equal to the text counts as replaced
        drawn_at = tensor((batch.weights > 0) & real)
        wrong = discriminator(tensor(shown), attention_mask=seen, labels=drawn_at)
    output = model(batch.inputs.replace(ids=shown), CALL)
    where = np.asarray(real)
    for ours, theirs in (
        (output.hidden, found.hidden_states[-1]),
        (model.classify(output.hidden, CALL)[..., 0], found.logits),
        (model.generating.logits(model.generating(batch.inputs, CALL).hidden, CALL), masked.logits),
    ):
        ours, theirs = np.asarray(ours)[where], theirs.numpy()[where]
        assert np.abs(ours - theirs).max() <= 2e-5 * max(1.0, np.std(theirs))
    sums, weights = totals(model, batch), OBJECTIVE.weights(batch)
    means = {term: float(sums[term] / weights[term]) for term in sums}
    assert means["masked_lm"] == pytest.approx(masked.loss.item(), rel=1e-5)
    assert means["replaced"] == pytest.approx(found.loss.item(), rel=1e-5)
    assert abs(means["replaced"] / wrong.loss.item() - 1) > 1e-2
    # what is measured, by theirs
    hit = (masked.logits.argmax(-1) == labels).sum() / (labels >= 0).sum()
    right = ((found.logits > 0).long() == tensor(replaced))[seen > 0].float().mean()
    assert means["generator_accuracy"] == pytest.approx(hit.item(), rel=1e-6)
    assert means["discriminator_accuracy"] == pytest.approx(right.item(), rel=1e-6)
    assert means["replaced_share"] == pytest.approx(float(replaced.sum() / real.sum()), rel=1e-6)


def kept(kind, there) -> str:
    """A run that holds a random model."""
    tree = config.Experiment("electra", kind, config.Bytes(("<mask>",)), objective=config.ReplacedTokens())
    tree = dataclasses.replace(tree, train=config.Train(length=96))
    run = open_run(tree, str(there / "run"))
    trained, frozen = partition(random_model(kind), lambda name, leaf: True)
    with Checkpoints(f"{run.path}/checkpoints", config=what_hash(tree)) as checkpoints:
        checkpoints.save(0, State(jnp.zeros((), jnp.int32), trained, {"model": frozen}, ()), {})
    return str(run.path)


def test_a_run_goes_out_as_two_models(tmp_path):
    """What `jaxlm export` writes loads by itself, and computes the same."""
    kind = dataclasses.replace(WIDE, vocab=288)
    said = export(kept(kind, tmp_path), tmp_path / "out")
    assert said.startswith(f"{tmp_path}/out: config.json (electra), safetensors, ")
    assert said.endswith(", generator")
    ids, model = np.random.default_rng(0).integers(5, 288, (2, 96)), random_model(kind)
    text = tokens(ids)
    one = transformers.AutoModelForPreTraining.from_pretrained(tmp_path / "out").eval()
    other = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "out", subfolder="generator").eval()
    with torch.no_grad():
        theirs = (
            one(torch.tensor(ids), output_hidden_states=True).hidden_states[-1],
            other(torch.tensor(ids)).logits,
        )
    beside = model.generating
    ours = model(text, CALL).hidden, beside.logits(beside(text, CALL).hidden, CALL)
    for mine, its in zip(ours, theirs, strict=True):
        assert np.abs(np.asarray(mine) - its.numpy()).max() <= 2e-5 * max(1.0, its.numpy().std())


def test_a_generator_that_no_family_has_keeps_a_run_in(tmp_path):
    generator = dataclasses.replace(ELECTRA.generator, head=config.Untied())
    run = kept(dataclasses.replace(ELECTRA, generator=generator), tmp_path)
    with pytest.raises(UsageError, match="this model is no ELECTRA"):
        export(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_tables_of_its_own_are_another_generator(references):
    """The control: the exported generator has the discriminator's tables, and needs them."""
    _, generator = references("factorized")
    model = random_model(ELECTRA)
    other = random_model(generating(ELECTRA), seed=1)
    mixed = dataclasses.replace(model.generating, embedding=other.embedding)
    ids = prepared().inputs.replace(segments=jnp.ones_like(prepared().inputs.segments))
    with torch.no_grad():
        theirs = generator(torch.tensor(np.asarray(ids.ids)).long()).logits.numpy()
    positions = jnp.broadcast_to(jnp.arange(96), ids.ids.shape)
    for one, same in ((model.generating, True), (mixed, False)):
        ours = one.logits(one(ids.replace(positions=positions), CALL).hidden, CALL)
        error = np.abs(np.asarray(ours) - theirs).max() / max(1.0, np.std(theirs))
        assert error <= 2e-5 if same else error > 2e-3
