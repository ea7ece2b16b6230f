"""Fits of laws that are known: exact without noise, inside of their intervals with it, and controls that miss."""

import numpy as np
import pytest
from scipy import special
from scipy.optimize import minimize

from jaxlm.config.errors import UsageError
from jaxlm.study.laws import PUBLISHED, Cost, Law, Points, envelope, isoflop, parametric, projection, simulate
from jaxlm.study.laws.bootstrap import bootstrap

NUMBERS = ("E", "A", "alpha", "B", "beta")
OTHER = Law(E=1.2, A=90.0, alpha=0.25, B=3000.0, beta=0.41)
DESIGNS = {"isoflops": simulate.isoflops, "ladder": simulate.ladder}
FITS = {"projection": projection.fit, "parametric": parametric.fit}


def off(found: Law, law: Law) -> float:
    """The largest relative error of the five numbers."""
    return max(abs(getattr(found, name) / getattr(law, name) - 1) for name in NUMBERS)


@pytest.mark.parametrize("law", [PUBLISHED, OTHER], ids=["published", "other"])
@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("fit", FITS)
def test_a_law_without_noise_is_found_again(fit, design, law):
    assert off(FITS[fit](DESIGNS[design](law)), law) < 1e-4


@pytest.mark.parametrize("fit", FITS)
def test_permuted_tokens_hold_no_law(fit):
    points = simulate.permuted(simulate.isoflops(), np.random.default_rng(0))
    assert off(FITS[fit](points), PUBLISHED) > 0.1


def test_without_a_floor_the_exponents_are_others():
    found = projection.fit(simulate.isoflops(), floor=False)
    assert found.E == 0
    assert abs(found.alpha - PUBLISHED.alpha) > 0.1
    assert abs(found.beta - PUBLISHED.beta) > 0.1


def test_the_projection_is_the_least_squares_of_all_five_numbers():
    points = simulate.noisy(simulate.isoflops(), np.random.default_rng(3))
    found = projection.fit(points)

    def squares(logs):
        law = Law(*np.exp(logs))
        return np.sum((law.loss(points.parameters, points.tokens) / points.losses - 1) ** 2)

    start = np.log([getattr(found, name) for name in NUMBERS])
    rng = np.random.default_rng(0)
    nearby = min(squares(start + 0.02 * rng.standard_normal(5)) for _ in range(200))
    better = minimize(
        squares, start, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-15, "maxiter": 2000}
    )
    assert squares(start) < nearby
    assert squares(start) <= better.fun * (1 + 1e-9)


def test_huber_is_scipys():
    errors = np.linspace(-4, 4, 41)
    value, slope = parametric.huber(errors)
    assert value == pytest.approx(np.sum(special.huber(1.0, errors)))
    step = 1e-6
    found = (special.huber(1.0, errors + step) - special.huber(1.0, errors - step)) / (2 * step)
    np.testing.assert_allclose(slope, found, atol=1e-6)


def test_the_search_ends_where_l_bfgs_from_many_starts_does():
    points = simulate.noisy(simulate.isoflops(sizes=5), np.random.default_rng(1))

    def objective(theta):
        a, alpha, b, beta, e = theta
        terms = [a - alpha * np.log(points.parameters), b - beta * np.log(points.tokens)]
        law = special.logsumexp([*terms, np.full(len(points), e)], axis=0)
        return np.sum(special.huber(1e-3, law - np.log(points.losses))) * 1e6

    found = parametric.fit(points)
    ours = objective([np.log(found.A), found.alpha, np.log(found.B), found.beta, np.log(found.E)])
    rng = np.random.default_rng(0)
    starts = [rng.uniform([4, 0.2, 4, 0.2, 0], [9, 0.6, 9, 0.6, 1]) for _ in range(4)]
    theirs = min(minimize(objective, start, method="L-BFGS-B", options={"maxiter": 150}).fun for start in starts)
    assert ours <= theirs * (1 + 1e-6)


def test_a_run_that_went_wrong_moves_the_robust_fit_less():
    points = simulate.isoflops()
    losses = points.losses.copy()
    losses[::8] *= 1.05  # of another size in each budget
    spoiled = Points(points.parameters, points.tokens, points.flops, losses)
    assert off(parametric.fit(spoiled), PUBLISHED) < 0.05
    assert off(projection.fit(spoiled), PUBLISHED) > 0.1


def test_parabolas_are_biased_without_noise():
    """Centered, the exponent is right and the models too large; on a ladder that drifts, the exponent is wrong."""
    best = PUBLISHED.optimum(3e22).parameters
    narrow, wide = (isoflop.fit(simulate.isoflops(width=width)) for width in (2, 16))
    drifted = isoflop.fit(simulate.isoflops(width=4, drift=1.0))
    assert narrow.exponents.a == pytest.approx(PUBLISHED.exponents.a, abs=1e-6)
    assert wide.exponents.a == pytest.approx(PUBLISHED.exponents.a, abs=1e-6)
    assert 1.001 < narrow.optimum(3e22).parameters / best < 1.006
    assert 1.05 < wide.optimum(3e22).parameters / best < 1.07
    assert 0.004 < drifted.exponents.a - PUBLISHED.exponents.a < 0.008
    exact = projection.fit(simulate.isoflops(width=4, drift=1.0))
    assert exact.exponents.a == pytest.approx(PUBLISHED.exponents.a, abs=1e-6)


def test_the_lowest_point_of_a_parabola():
    logs = np.linspace(-1, 2, 7)
    place, loss = isoflop.lowest(np.exp(logs), 2 * (logs + 0.4) ** 2 + 1.5)
    assert (np.log(place), loss) == pytest.approx((-0.4, 1.5))
    assert isoflop.lowest(np.exp(logs), 2 - (logs - 0.4) ** 2) is None
    assert isoflop.lowest(np.exp(logs), (logs - 2.1) ** 2 + 1) is None


def test_losses_that_do_not_fall_with_tokens_hold_no_law():
    points = simulate.ladder()
    flat = Points(points.parameters, points.tokens, points.flops, 2 + 30 * points.parameters**-0.2)
    rising = Points(flat.parameters, flat.tokens, flat.flops, flat.losses * (points.tokens / 1e9) ** 0.01)
    for fit in FITS.values():
        for wrong in (flat, rising):
            with pytest.raises(UsageError, match="do not fall with tokens"):
                fit(wrong)
    backwards = simulate.isoflops()
    losses = backwards.losses[::-1]
    for fit in FITS.values():
        with pytest.raises(UsageError, match="do not fall with parameters"):
            fit(Points(backwards.parameters, backwards.tokens, backwards.flops, losses))


@pytest.mark.parametrize("fit", FITS)
def test_a_term_that_is_as_good_as_constant_is_no_law(fit):
    points = simulate.ladder()
    losses = 5 + (points.parameters / 1e7) ** -0.3 - 5e-4 * np.log(points.tokens / 1e8)
    with pytest.raises(UsageError, match="hardly fall with tokens"):
        FITS[fit](Points(points.parameters, points.tokens, points.flops, losses))


def test_a_step_has_no_exponent():
    points = simulate.ladder()
    losses = np.where(points.parameters == points.parameters.min(), 5.0, 3.0) + (points.tokens / 1e9) ** -0.3
    with pytest.raises(UsageError, match="fall in a single step with parameters"):
        parametric.fit(Points(1e6 * points.parameters, points.tokens, points.flops, losses))


def test_an_optimum_beyond_all_numbers_is_no_crash():
    assert Law(1.0, 1.0, 1e-5, 2.0, 1e-5).optimum(1e20).parameters == 0


def tilted(factor: float) -> Points:
    """Isoflops without noise, of which the FLOPs rise by a factor from size to size."""
    points = simulate.isoflops()
    flops = points.flops * np.tile(factor ** (np.arange(9) - 4.0), len(simulate.BUDGETS))
    tokens = PUBLISHED.cost.tokens(flops, points.parameters)
    return Points(points.parameters, tokens, flops, PUBLISHED.loss(points.parameters, tokens))


def test_a_budget_does_not_grow_from_neighbor_to_neighbor():
    flops = 1e18 * 1.2 ** np.arange(40)
    numbers = Points(*np.ones((2, 40)), flops, np.ones(40)).budgets()
    for number in range(numbers.max() + 1):
        own = flops[numbers == number]
        assert own.max() <= 1.25 * own.min()
    assert np.all(np.diff(numbers) >= 0)
    assert (
        simulate.noisy(tilted(1.001), np.random.default_rng(0))[::-1].budgets().tolist()
        == np.repeat(np.arange(7)[::-1], 9).tolist()
    )


def test_budgets_of_unequal_flops_are_refused():
    """Models that are larger and trained on more FLOPs look better: the optimum would be 2.5 times too large."""
    whole_steps = isoflop.fit(tilted(1.00125)).optimum(3e21).parameters
    assert whole_steps == pytest.approx(isoflop.fit(simulate.isoflops()).optimum(3e21).parameters, rel=5e-3)
    for span, says in (
        (1.1, "1.1 times as many"),
        (1.24, "1.24 times as many"),
        (1.15**8, "3 runs from .* equal FLOPs"),
    ):
        with pytest.raises(UsageError, match=says):
            isoflop.fit(tilted(span ** (1 / 8)))
    with pytest.raises(UsageError, match="no budget of equal FLOPs"):
        isoflop.fit(tilted(1.2))  # here budgets overlap as well
    assert off(projection.fit(tilted(1.2)), PUBLISHED) < 1e-4


def test_an_envelope_is_as_fine_as_its_sizes():
    errors = [
        abs(envelope.fit(simulate.curves(sizes=sizes)).exponents.a - PUBLISHED.exponents.a) for sizes in (8, 24)
    ]
    assert errors[1] < 0.002 < 0.01 < errors[0] < 0.03


def test_an_envelope_leaves_out_the_edges():
    _, parameters, _, _ = envelope.envelope(simulate.curves())
    sizes = [curve.parameters[0] for curve in simulate.curves()]
    assert min(sizes) < parameters.min()
    assert parameters.max() < max(sizes)


def test_flops_that_are_not_6nd_are_fitted():
    cost = Cost(9.0, 0.93)
    law = Law(1.69, 406.4, 0.34, 410.7, 0.28, cost)
    points = simulate.isoflops(law)
    found = projection.fit(points)
    assert found.cost.coefficient == pytest.approx(9.0)
    assert found.cost.exponent == pytest.approx(0.93)
    assert found.exponents == pytest.approx((0.28 / (0.34 + 0.93 * 0.28), 0.34 / (0.34 + 0.93 * 0.28)))
    assert isoflop.fit(points).exponents.a == pytest.approx(found.exponents.a, abs=2e-3)
    n, d = points.parameters, points.tokens
    taken_for_6nd = projection.fit(Points(n, d, 6 * n * d, points.losses))
    assert abs(taken_for_6nd.optimum(1e22).parameters / law.optimum(1e22).parameters - 1) > 0.05


@pytest.mark.parametrize("law", [PUBLISHED, Law(1.69, 406.4, 0.34, 410.7, 0.28, Cost(9.0, 0.93))])
def test_an_optimum_is_the_least_loss_that_the_budget_pays_for(law):
    for flops in (1e19, 5.76e23):
        best = law.optimum(flops)
        sizes = best.parameters * np.geomspace(0.5, 2, 2001)
        losses = law.loss(sizes, law.cost.tokens(flops, sizes))
        assert sizes[np.argmin(losses)] == pytest.approx(best.parameters, rel=1e-3)
        assert law.cost.flops(best.parameters, best.tokens) == pytest.approx(flops)
    ratio = law.optimum(1e22).parameters / law.optimum(1e21).parameters
    assert np.log10(ratio) == pytest.approx(law.exponents.a)


def test_the_published_law_is_that_of_the_paper():
    """Hoffmann et al. 2022, table 2: approach 3 gives a = 0.46, b = 0.54."""
    assert PUBLISHED.exponents == pytest.approx((0.46, 0.54), abs=0.01)


@pytest.mark.parametrize(
    ("points", "says"),
    [
        (simulate.isoflops(sizes=1, budgets=(1e19, 1e20)), "at least 6 runs"),
        (Points(*np.ones((4, 8))), "one size"),
        (Points(np.arange(1.0, 9.0), *np.ones((3, 8))), "one number of tokens"),
        (Points(np.repeat([1e6, 1e7], 4), np.arange(1e9, 9e9, 1e9), np.ones(8), np.ones(8)), "3 sizes"),
    ],
)
@pytest.mark.parametrize("fit", FITS)
def test_what_cannot_be_fitted_is_refused(fit, points, says):
    with pytest.raises(UsageError, match=says):
        FITS[fit](points)


def test_frontiers_refuse_what_they_cannot_see():
    with pytest.raises(UsageError, match="2 budgets"):
        isoflop.fit(simulate.isoflops(budgets=(1e19, 1e20)))
    with pytest.raises(UsageError, match="several losses"):
        envelope.fit([curve[-1:] for curve in simulate.curves()])
    with pytest.raises(UsageError, match="1 sizes"):
        envelope.fit(simulate.curves(sizes=3))


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf])
def test_a_point_must_be_a_positive_number(bad):
    with pytest.raises(UsageError, match="point 2"):
        Points(np.ones(3), np.ones(3), np.ones(3), np.array([1.0, bad, 1.0]))


# --- intervals ---------------------------------------------------------------------------------------------


def covered(fit, simulations: int, resamples: int, noise: float = simulate.NOISE) -> dict[str, int]:
    """How many intervals of 90 % hold the true exponent, on 7 budgets of 9 sizes."""
    values = {"alpha": lambda one: one.alpha, "beta": lambda one: one.beta, "a": lambda one: one.exponents.a}
    values = {"a": values["a"]} if fit is isoflop.fit else values
    hits = dict.fromkeys(values, 0)
    for i in range(simulations):
        points = simulate.noisy(simulate.isoflops(), np.random.default_rng(1000 + i), noise)
        found = bootstrap(fit, points, resamples, i)
        for name, value in values.items():
            low, high = found.interval(value)
            hits[name] += low <= value(PUBLISHED) <= high
    return hits


def test_intervals_hold_the_truth():
    for name, hits in covered(projection.fit, 30, 40).items():
        assert 24 <= hits <= 30, name


@pytest.mark.nightly
@pytest.mark.parametrize("noise", [0.005, 0.01])
def test_intervals_of_ninety_percent_hold_the_truth_in_ninety_of_a_hundred(noise):
    for name, hits in covered(projection.fit, 100, 120, noise).items():
        assert 85 <= hits <= 95, name


@pytest.mark.nightly
def test_intervals_of_other_approaches():
    for name, hits in covered(parametric.fit, 100, 120).items():
        assert 85 <= hits <= 95, name
    assert 85 <= covered(isoflop.fit, 100, 120)["a"] <= 97


def test_intervals_are_the_same_for_the_same_seed_and_widen_with_noise():
    points = simulate.isoflops(sizes=5)
    quiet, loud = (simulate.noisy(points, np.random.default_rng(0), noise) for noise in (0.003, 0.012))
    value = lambda one: one.exponents.a  # noqa: E731
    first, again, other, wide = (
        bootstrap(projection.fit, data, 40, seed).interval(value)
        for data, seed in ((quiet, 0), (quiet, 0), (quiet, 1), (loud, 0))
    )
    assert first == again != other
    assert wide[1] - wide[0] > 2 * (first[1] - first[0]) > 0


def test_whole_curves_are_drawn():
    curves = [simulate.noisy(curve, np.random.default_rng(i), 0.002) for i, curve in enumerate(simulate.curves())]
    low, high = bootstrap(envelope.fit, curves, 40).interval(lambda one: one.exponents.a)
    assert low < high < 0.6


def test_too_few_runs_have_no_interval():
    points = simulate.isoflops(budgets=simulate.BUDGETS[:3], sizes=3, width=2)
    with pytest.raises(UsageError, match=r"too few for intervals: of .* draws 61 had none"):
        bootstrap(isoflop.fit, points, 20)


def falling(often: int):
    """A fit of which every so many draws have no law, and those draws."""
    lost = []

    def fit(points, start=None):
        lost.append(start is not None and len(lost) % often == 0)
        if lost[-1]:
            raise UsageError("no term of tokens")
        return PUBLISHED

    return fit, lost


def test_draws_without_a_law_are_counted_and_more_than_a_tenth_refused():
    points = simulate.noisy(simulate.isoflops(), np.random.default_rng(0))
    fit, lost = falling(20)
    found = bootstrap(fit, points, 40)
    assert (found.without, len(found.again)) == (sum(lost), 40) == (2, 40)
    assert bootstrap(projection.fit, points, 20).without == 0
    fit, lost = falling(8)
    with pytest.raises(UsageError, match=r"of 40 draws 5 had none \(no term of tokens\): train more sizes"):
        bootstrap(fit, points, 40)


def test_draws_without_a_frontier_are_counted():
    points = simulate.noisy(simulate.isoflops(budgets=simulate.BUDGETS[:3], sizes=5), np.random.default_rng(0))
    found = bootstrap(isoflop.fit, points, 20)
    assert len(found.again) == 20
    assert 0 < found.without <= 60
