"""`--after RUN`: a branch of a run is, bit for bit, the run that takes all steps itself."""

import pytest

STABLE = ("optimizer.schedule:constant", "--optimizer.schedule.peak", "1e-2", "--optimizer.schedule.warmup", "5")
DECAY = (
    "optimizer.schedule:warmup_stable_decay",
    *STABLE[1:],
    "--optimizer.schedule.decay",
    "20",
    "--train.steps",
    "60",
)


@pytest.fixture(scope="module")
def trunk(ground):
    """A run of 40 steps at one rate."""
    ground.finish("trunk", *STABLE, "--train.steps", "40")
    return "trunk"


@pytest.mark.nightly
def test_a_branch_is_the_whole_run(ground, straight, trunk):
    digest, whole = ground.outcome(straight(*DECAY))
    done = ground.finish("branch", "--after", trunk, *DECAY)
    assert "goes on after step 40 of trunk" in done.out
    assert ground.manifest("branch")["after"] == {"run": trunk, "step": 40}
    branch = ground.outcome("branch")
    assert branch[0] == digest
    assert {key: value for key, value in whole.items() if key[1] > 40} == branch[1]
    assert ground.manifest("branch")["parameters"] != ground.manifest(trunk)["parameters"]


@pytest.mark.nightly
def test_a_longer_run_goes_on(ground, straight, trunk):
    digest, _ = ground.outcome(straight(*STABLE, "--train.steps", "50"))
    ground.finish("longer", "--after", trunk, *STABLE, "--train.steps", "50")
    assert ground.outcome("longer")[0] == digest


@pytest.mark.nightly
def test_other_steps_are_refused(ground, trunk):
    for words, says in (
        ((*DECAY, "--train.seed", "1"), "train.seed: 0 there, 1 here"),
        (("--train.steps", "60"), "the learning rate of step 7"),
        ((*STABLE, "--train.steps", "40"), "it has taken 40 steps"),
    ):
        refused = ground.finish("refused", "--after", trunk, *words, code=2)
        assert says in refused.err
