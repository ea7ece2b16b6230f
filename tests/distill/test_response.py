"""Divergences against float64 and torch, their limits, and what goes wrong where they are computed otherwise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from jaxlm.config.distillation import (
    ForwardKl,
    Jsd,
    ReverseKl,
    SkewedKl,
    SkewedReverseKl,
    SoftLabels,
    TotalVariation,
)
from jaxlm.distill.response import divergence, divergence_of_likeliest, shared_vocabulary
from jaxlm.parallel.layout import single_device
from tests.tiny import layout

ONE = single_device()
RNG = np.random.default_rng(0)
VOCAB = 48
TEACHER, STUDENT = (jnp.asarray(2.5 * RNG.standard_normal((2, 4, VOCAB)), jnp.float32) for _ in range(2))
KINDS = (
    SoftLabels(3.0),
    ForwardKl(),
    ReverseKl(),
    SkewedKl(0.1),
    SkewedReverseKl(0.2),
    Jsd(0.1),
    Jsd(0.3, "normalized"),
    TotalVariation(),
)


def softmax(logits):
    exp = np.exp(np.asarray(logits, np.float64) - np.max(logits, -1, keepdims=True))
    return exp / exp.sum(-1, keepdims=True)


def kl(p, q):
    return (p * np.log(p / q)).sum(-1)


def by_hand(kind, teacher, student):
    """In float64, from the papers' equations."""
    t, s = softmax(teacher), softmax(student)
    match kind:
        case SoftLabels(temperature):
            soft = (softmax(np.asarray(x, np.float64) / temperature) for x in (teacher, student))
            return temperature**2 * kl(*soft)
        case ForwardKl():
            return kl(t, s)
        case ReverseKl():
            return kl(s, t)
        case SkewedKl(skew):
            return kl(t, skew * t + (1 - skew) * s)
        case SkewedReverseKl(skew):
            return kl(s, skew * s + (1 - skew) * t)
        case Jsd(beta, scale):
            mixed = beta * t + (1 - beta) * s
            found = beta * kl(t, mixed) + (1 - beta) * kl(s, mixed)
            return found / (beta * (1 - beta)) if scale == "normalized" else found
        case TotalVariation():
            return 0.5 * np.abs(t - s).sum(-1)


def of(kind, teacher=TEACHER, student=STUDENT):
    return np.asarray(divergence(kind, teacher, student, ONE))


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_equations(kind):
    got, wanted = of(kind), by_hand(kind, TEACHER, STUDENT)
    np.testing.assert_allclose(got, wanted, rtol=2e-6)
    assert np.abs(of(kind, TEACHER, TEACHER)).max() <= 2e-6 * wanted.max()
    assert np.abs(got - by_hand(kind, STUDENT, TEACHER)).max() > 1e-3 or isinstance(kind, TotalVariation)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_gradients_are_those_of_differences(kind):
    """Along a random direction, in float64; none reaches the teacher's side twice."""
    direction = RNG.standard_normal(STUDENT.shape)
    gradient = jax.grad(lambda s: divergence(kind, TEACHER, s, ONE).sum())(STUDENT)
    ends = [by_hand(kind, TEACHER, np.asarray(STUDENT, np.float64) + e * direction).sum() for e in (1e-5, -1e-5)]
    np.testing.assert_allclose(np.sum(gradient * direction), (ends[0] - ends[1]) / 2e-5, rtol=2e-5)


def test_torch_agrees():
    """KLs and their gradients, softened ones times T^2."""
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    t, s = (torch.tensor(np.asarray(x), requires_grad=True) for x in (TEACHER, STUDENT))
    logs = {T: [functional.log_softmax(x / T, -1) for x in (t, s)] for T in (1.0, 4.0)}
    kls = {
        SoftLabels(4.0): 16 * functional.kl_div(logs[4.0][1], logs[4.0][0], log_target=True, reduction="sum"),
        ForwardKl(): functional.kl_div(logs[1.0][1], logs[1.0][0], log_target=True, reduction="sum"),
        ReverseKl(): functional.kl_div(logs[1.0][0], logs[1.0][1], log_target=True, reduction="sum"),
    }
    for kind, wanted in kls.items():
        (wanted_gradient,) = torch.autograd.grad(wanted, s, retain_graph=True)
        value, gradient = jax.value_and_grad(lambda s, k=kind: divergence(k, TEACHER, s, ONE).sum())(STUDENT)
        np.testing.assert_allclose(value, wanted.item(), rtol=1e-6)
        np.testing.assert_allclose(gradient, wanted_gradient.numpy(), atol=1e-6)


def test_temperature_does_not_change_the_size_of_gradients():
    """At high temperatures |gradient| -> |centered difference of logits| / vocab: T = 8 and 16 agree to 0.5 %.

    The control leaves T^2 out: at T = 4 the teacher's part would be a sixteenth of what it is.
    """
    teacher, student = (0.5 * x[0, 0] for x in (TEACHER, STUDENT))
    sizes = {
        T: float(jnp.linalg.norm(jax.grad(lambda s, T=T: divergence(SoftLabels(T), teacher, s, ONE))(student)))
        for T in (1.0, 4.0, 8.0, 16.0, 64.0)
    }
    difference = np.asarray(student - teacher, np.float64)
    limit = np.linalg.norm(difference - difference.mean()) / VOCAB
    np.testing.assert_allclose(sizes[8.0], sizes[16.0], rtol=0.005)
    np.testing.assert_allclose(sizes[64.0], limit, rtol=0.005)
    assert sizes[4.0] / 16 < 0.1 * limit


def test_generalized_jsd_has_both_directions():
    """Toward 0 the forward KL and toward 1 the reverse; by the paper's scale nothing at either end."""
    both = tuple(0.6 * x for x in (TEACHER, STUDENT))
    forward, reverse = of(ForwardKl(), *both), of(ReverseKl(), *both)
    # Divided by 1e-4: what float32 rounds away at 1 counts ten thousand times.
    for beta, wanted, other in ((1e-4, forward, reverse), (1 - 1e-4, reverse, forward)):
        near = of(Jsd(beta, "normalized"), *both)
        np.testing.assert_allclose(near, wanted, rtol=0.01)
        assert np.abs(near - other).max() > 0.1
        assert of(Jsd(beta), *both).max() < 1e-3
        np.testing.assert_allclose(near, by_hand(Jsd(beta, "normalized"), *both), rtol=5e-4)


def test_generalized_jsd_is_not_symmetric():
    """The mixture's weights exchanged are another loss, which 0.5 alone cannot tell."""
    exchanged = {beta: by_hand(Jsd(1 - beta), STUDENT, TEACHER) for beta in (0.1, 0.5)}
    wrong = {}
    for beta in (0.1, 0.5):
        t, s = softmax(TEACHER), softmax(STUDENT)
        mixed = (1 - beta) * t + beta * s
        wrong[beta] = beta * kl(t, mixed) + (1 - beta) * kl(s, mixed)
    np.testing.assert_allclose(of(Jsd(0.1)), exchanged[0.1], rtol=1e-5)
    assert np.abs(of(Jsd(0.1)) - of(Jsd(0.9))).max() > 0.01
    assert np.abs(of(Jsd(0.1)) / wrong[0.1] - 1).min() > 0.3
    np.testing.assert_allclose(of(Jsd(0.5)), wrong[0.5], rtol=1e-5)


def test_a_teacher_in_bfloat16_makes_no_divergence_negative():
    teacher = STUDENT.astype(jnp.bfloat16)
    for kind in KINDS:
        assert of(kind, teacher, STUDENT).min() > -1e-6, kind


# --- a teacher's likeliest tokens --------------------------------------------------------------------------


def likeliest(logits, count):
    p = softmax(logits)
    tokens = np.argsort(-p, -1)[..., :count]
    return jnp.asarray(np.log(np.take_along_axis(p, tokens, -1)), jnp.float32), jnp.asarray(tokens)


def merged(p, tokens):
    chosen = np.take_along_axis(p, np.asarray(tokens), -1)
    return np.concatenate([chosen, 1 - chosen.sum(-1, keepdims=True)], -1)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not isinstance(kind, SoftLabels)], ids=str)
def test_of_the_likeliest_tokens(kind):
    """As of distributions over them and the rest; with all tokens named, the whole divergence."""
    log_p, tokens = likeliest(TEACHER, 6)
    got = divergence_of_likeliest(kind, log_p, tokens, STUDENT, ONE)
    wanted = by_hand(kind, *(np.log(merged(softmax(x), tokens)) for x in (TEACHER, STUDENT)))
    np.testing.assert_allclose(got, wanted, rtol=1e-5)
    assert np.all(got <= of(kind) + 1e-6), "outcomes thrown together are not told apart"
    whole = divergence_of_likeliest(kind, *likeliest(TEACHER, VOCAB), STUDENT, ONE)
    np.testing.assert_allclose(whole, of(kind), rtol=1e-5)
    none = (
        jnp.concatenate([log_p, jnp.full((2, 4, 2), -jnp.inf)], -1),
        jnp.pad(tokens, ((0, 0), (0, 0), (0, 2)), constant_values=-1),
    )
    np.testing.assert_allclose(divergence_of_likeliest(kind, *none, STUDENT, ONE), got, rtol=1e-6)
    gradient = jax.grad(lambda s: divergence_of_likeliest(kind, *none, s, ONE).sum())(STUDENT)
    assert np.isfinite(gradient).all()
    assert np.linalg.norm(gradient) > 0.01


def test_a_student_off_the_likeliest_tokens_is_told():
    """It has the teacher's ratios among them and 0.55 % of its mass there: renormalized, the loss would be 0.

    Outcomes outside are in the teacher's ratios too, so that the k + 1 outcomes have the whole divergence: 4.988.
    """
    k, theirs, ours = 4, 0.9789, 0.0055
    inside, outside = softmax(RNG.standard_normal(k)), softmax(RNG.standard_normal(VOCAB - k))
    t, s = (np.log(np.concatenate([mass * inside, (1 - mass) * outside])) for mass in (theirs, ours))
    t, s = jnp.asarray(t, jnp.float32)[None], jnp.asarray(s, jnp.float32)[None]
    got = divergence_of_likeliest(ForwardKl(), t[..., :k], jnp.arange(k)[None], s, ONE)
    closed = theirs * np.log(theirs / ours) + (1 - theirs) * np.log((1 - theirs) / (1 - ours))
    np.testing.assert_allclose(got, closed, rtol=1e-5)
    np.testing.assert_allclose(got, of(ForwardKl(), t, s), rtol=1e-5)
    np.testing.assert_allclose(got, 4.988, atol=0.005)
    np.testing.assert_allclose(of(ForwardKl(), t[..., :k], s[..., :k]), 0.0, atol=1e-6)


def test_a_list_of_tokens_cannot_be_softened():
    with pytest.raises(ValueError, match="temperature 2"):
        divergence_of_likeliest(SoftLabels(2.0), *likeliest(TEACHER, 3), STUDENT, ONE)
    one = divergence_of_likeliest(SoftLabels(1.0), *likeliest(TEACHER, 3), STUDENT, ONE)
    np.testing.assert_allclose(one, divergence_of_likeliest(ForwardKl(), *likeliest(TEACHER, 3), STUDENT, ONE))


# --- tables of other sizes, and vocabularies that devices share --------------------------------------------


def test_tables_of_other_sizes_are_cut_to_what_they_share():
    padded = jnp.concatenate([TEACHER, jnp.full((2, 4, 8), 7.0)], -1)
    got = divergence(ForwardKl(), *shared_vocabulary(padded, STUDENT, VOCAB, ONE), ONE)
    np.testing.assert_array_equal(got, of(ForwardKl()))
    got = divergence(ForwardKl(), *shared_vocabulary(TEACHER, padded, 40, ONE), ONE)
    np.testing.assert_allclose(got, by_hand(ForwardKl(), TEACHER[..., :40], TEACHER[..., :40]), atol=1e-6)


@pytest.mark.parametrize("more", [0, 16], ids=["same", "padded"])
def test_a_vocabulary_spread_over_devices(more):
    """Values and gradients of one device, of tables of one size and of two."""
    where = layout(tensor=4)
    teacher = jnp.concatenate([TEACHER, jnp.full((2, 4, more), 3.0)], -1)
    vocab, kind = VOCAB - 2 * bool(more), Jsd(0.3)
    log_p, tokens = likeliest(TEACHER, 5)

    def loss(student, teacher, log_p, tokens, on):
        both = shared_vocabulary(teacher, student, vocab, on)
        whole = divergence(kind, *both, on)
        listed = divergence_of_likeliest(kind, log_p, tokens, student, on)
        return jnp.sum(whole * jnp.sin(1 + whole) + listed), (whole, listed)

    def of_a_device(student, teacher, log_p, tokens):
        (_, each), gradient = jax.value_and_grad(loss, has_aux=True)(student, teacher, log_p, tokens, where)
        return each, gradient

    (_, each), gradient = jax.value_and_grad(loss, has_aux=True)(STUDENT, teacher, log_p, tokens, ONE)
    spread, own = PartitionSpec(None, None, "tensor"), PartitionSpec(None, "tensor")
    run = jax.jit(where.spmd(of_a_device, (spread, spread, own, own), ((own, own), spread)))
    got = run(STUDENT, teacher, log_p, tokens)
    jax.tree.map(lambda one, two: np.testing.assert_allclose(two, one, atol=2e-6), (each, gradient), got)
    assert np.abs(gradient).max() > 0.01
