"""Whole recipes of papers, from a config to the loss, against torch; and that a student learns of its teacher."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxlm import config
from jaxlm.config import flops
from jaxlm.config.errors import UsageError
from jaxlm.config.special import Special
from jaxlm.config.surgery import Cut, every_other
from jaxlm.distill.build import build
from jaxlm.distill.objective import asked
from jaxlm.distill.student import student as beside
from jaxlm.distill.surgery import student
from jaxlm.distill.vocabulary import shared_tokens
from jaxlm.layers.names import partition
from jaxlm.tokenizers.bytes import ByteTokenizer
from jaxlm.train.held_out import means
from jaxlm.train.state import State
from jaxlm.train.step import make_step
from tests import base
from tests.tiny import CALL, GLOBAL, SIZES, VOCAB, packed_batch, random_model

SPECIAL = Special(VOCAB, 0, 2, 3, (("<mask>", 1),))
TEACHER = config.Encoder(
    **SIZES,
    layers=4,
    block=config.Block(config.Attention(4, 4, 4), config.Plain(32, "gelu"), config.PostNorm()),
    position=config.Learned(length=16),
    head=config.Transformed(),
)
DISTILBERT = config.Distillation(
    config.MaskedLm(rate=0.3),
    config.SoftLabels(2.0),
    labels=2.0,
    weight=5.0,
    at="tokens",
    features=(config.HiddenStates(1.0, config.Last(), "cosine"),),
)
"""The weights of the released recipe: of soft labels at all tokens 5, of hidden tokens 2, of cosines 1."""
TINYBERT = config.Distillation(
    config.MaskedLm(rate=0.3),
    config.NoResponse(),
    labels=0.0,
    features=(
        config.EmbeddingOutput(projection="linear"),
        config.HiddenStates(projection="linear"),
        config.AttentionScores(),
    ),
)
"""Its first stage: no distributions at all."""


def prepared(kind, model_config):
    objective = build(kind, model_config, lambda: SPECIAL)
    return objective, objective.prepare(packed_batch(model_config), jax.random.key(0))


def loss(objective, model, batch, teacher):
    sums, _ = objective.totals(model, batch, None, CALL, {"teacher": teacher})
    weights = objective.weights(batch)
    assert weights.keys() == sums.keys() == objective.coefficients.keys()
    return sum(objective.coefficients[name] * sums[name] / weights[name] for name in sums)


def tensors(model, batch):
    """(Logits, hidden states) for torch."""
    torch = pytest.importorskip("torch")
    hidden = model(batch.inputs, CALL).hidden
    return torch, *(torch.tensor(np.array(x)) for x in (model.logits(hidden, CALL), hidden))


def test_distilbert():
    """Every other layer of the teacher, and the three losses as its authors compute them in torch."""
    teacher = random_model(TEACHER)
    model, kind = student(teacher, Cut(layers=every_other(4)))
    objective, batch = prepared(DISTILBERT, kind)
    torch, ours, own = tensors(model, batch)
    _, theirs, hers = tensors(teacher, batch)
    functional, mask = torch.nn.functional, torch.tensor(np.array(batch.inputs.segments > 0))
    soft = functional.kl_div(
        functional.log_softmax(ours[mask] / 2, -1), functional.softmax(theirs[mask] / 2, -1), reduction="batchmean"
    )
    labels = torch.where(
        torch.tensor(np.array(batch.weights) > 0), torch.tensor(np.array(batch.targets)), -100
    ).long()
    masked = functional.cross_entropy(ours.flatten(0, 1), labels.flatten(), ignore_index=-100)
    cosine = functional.cosine_embedding_loss(own[mask], hers[mask], torch.ones(int(mask.sum())))
    got = float(jax.jit(lambda m: loss(objective, m, batch, teacher))(model))
    np.testing.assert_allclose(got, (5 * 4 * soft + 2 * masked + cosine).item(), rtol=2e-6)
    assert abs(got - (5 * soft + 2 * masked + cosine).item()) > 0.1, "the control leaves T^2 out"


def test_tinyberts_first_stage():
    """Nothing is scored; each term is an average of its own, and the projections learn with the student."""
    teacher = random_model(dataclasses.replace(TEACHER, embed=24))
    own = dataclasses.replace(TEACHER, layers=2)
    model = beside(random_model(own), TINYBERT, 24, jax.random.key(0))
    objective, batch = prepared(TINYBERT, own)
    assert set(objective.coefficients) == {"embedding_output", "hidden_states", "attention_scores"}

    def scored(objective):
        text = str(
            jax.make_jaxpr(lambda m, t: objective.totals(m, batch, None, CALL, {"teacher": t}))(model, teacher)
        )
        return re.search(rf"f32\[8,\d+,{VOCAB}\]", text)

    assert not scored(objective)
    assert scored(dataclasses.replace(objective, labels=1.0)), "the control has the labels too"
    gradient = jax.jit(jax.grad(lambda m: loss(objective, m, batch, teacher)))(model)
    assert all(np.linalg.norm(one.kernel) > 0.01 for one in gradient.projections if one is not None)
    assert not np.any(gradient.model.head.bias)


def test_held_out_text_is_asked_for_labels_too():
    """What a student of features alone has come to, where it has a head; the loss is the same."""
    teacher = random_model(TEACHER)
    own = dataclasses.replace(TEACHER, layers=2)
    features = (config.HiddenStates(), config.AttentionScores())
    objective, batch = prepared(dataclasses.replace(TINYBERT, features=features), own)
    model, found = random_model(own), {}
    for kind in (objective, asked(objective, own), objective.base):
        sums, _ = jax.jit(lambda m, kind=kind: kind.totals(m, batch, None, CALL, {"teacher": teacher}))(model)
        found[kind] = means(kind, [(sums, kind.weights(batch))])
    plain, whole, labels = found.values()
    assert whole["loss"] == pytest.approx(plain["loss"], rel=1e-6)
    assert {name: whole[name] for name in ("masked_lm", "accuracy")} == pytest.approx(
        {name: labels[name] for name in ("masked_lm", "accuracy")}, rel=1e-6
    )
    assert whole.keys() - plain.keys() == labels.keys() - {"loss"}
    assert asked(objective, dataclasses.replace(own, head=config.NoHead())) == objective
    assert asked(objective.base, own) == objective.base


def test_operations_of_the_teacher():
    """A forward pass of its own beside the student's three."""
    experiment = base.experiment()
    teacher = dataclasses.replace(experiment.model, layers=8)
    taught = dataclasses.replace(experiment, objective=config.Distillation())
    alone, found = flops.flops_of(experiment), flops.flops_of(taught, teacher)
    hers = flops.flops_per_token(teacher, experiment.train.length)
    assert found["training"] == alone["training"] + hers["forward"]
    unscored = dataclasses.replace(taught, objective=dataclasses.replace(TINYBERT, base=config.Autoregressive()))
    assert flops.flops_of(unscored, teacher)["teacher"] == hers["forward"] - hers["head"]
    assert flops.flops_of(unscored)["head"] == 0


def test_other_tokens_are_refused_by_name():
    plain, more = (ByteTokenizer(special) for special in ((), ("<mask>",)))
    assert shared_tokens(plain, plain) == plain.vocab
    assert shared_tokens(more, plain) == shared_tokens(plain, more) == min(plain.vocab, more.vocab)

    class Other(ByteTokenizer):
        """The same but for one token."""

        fingerprint = "other"

        def bytes_of(self, ids):
            return b"?" if ids == [70] else plain.bytes_of(ids)

    class Ends(ByteTokenizer):
        """The same but for its end."""

        fingerprint, eos = "other", 9

    with pytest.raises(UsageError, match=r"token 70 is b'B' to the student and b'\?' to the teacher"):
        shared_tokens(plain, Other())
    with pytest.raises(UsageError, match=r"the student's eos is token 3 and the teacher's 9"):
        shared_tokens(plain, Ends())


@pytest.mark.nightly
@pytest.mark.parametrize("response", [config.SoftLabels(2.0), config.ReverseKl(), config.Jsd(0.5)], ids=str)
def test_a_student_learns_of_its_teacher(response):
    """Of the teacher alone, on rows with targets that mean nothing: the divergence falls to a tenth."""
    kind = config.Decoder(**SIZES, layers=1, block=GLOBAL)
    teacher, batch = random_model(dataclasses.replace(kind, layers=2), seed=1), packed_batch(kind)
    batch = batch.replace(weights=(batch.inputs.segments > 0).astype(jnp.float32))
    objective = build(config.Distillation(response=response, labels=0.0, weight=1.0), kind)
    model, frozen = partition(random_model(kind), lambda *_: True)
    optimizer = optax.adam(3e-3)
    state = State(jnp.int32(0), model, {"model": frozen, "teacher": teacher}, optimizer.init(model))
    step, found = jax.jit(make_step(objective, optimizer, CALL, seed=0)), []
    for _ in range(400):
        state, metrics = step(state, batch)
        found.append(float(metrics["divergence"]))
    assert found[-1] < 0.1 * found[0]
