"""Overrides against hand-written expectations, and the share of typos that are understood."""

import dataclasses
import random
import re
import string

import pytest

from jaxlm import config as c
from jaxlm.config.errors import UsageError
from jaxlm.config.overrides import apply
from jaxlm.config.paths import choices, has_default, leaves, option_name, reachable
from jaxlm.config.suggest import nearest
from tests.base import experiment

BASE = experiment()


def changed(*argv: str, tree=BASE):
    return apply(tree, list(argv))


def refused(*argv: str, tree=BASE) -> str:
    with pytest.raises(UsageError) as error:
        apply(tree, list(argv))
    return str(error.value)


def test_sets_each_kind_of_field():
    new = changed(
        "--model.position.theta", "1e4", "--train.batch=8", "--where.micro-batches", "2", "--train.ema", "0.9"
    )
    assert new.model.position == c.Rope(theta=1e4)
    assert (new.train.batch, new.where.micro_batches, new.train.ema) == (8, 2, 0.9)
    assert changed("--train.ema", "none", tree=new).train.ema is None
    assert changed("--model.block.attention.window", "128").model.block.attention.window == 128
    assert changed("--precision", "bfloat16").precision == "bfloat16"
    assert changed("--samples.prompts", "a b", "c:d").samples.prompts == ("a b", "c:d")
    assert changed("--samples.prompts", "x", "--train.steps", "3").train.steps == 3
    assert changed("--data.filters.languages").data.filters.languages == ()
    assert type(changed("--train.steps", "1e3").train.steps) is int
    assert changed("--train.steps", "5", "--train.steps", "7").train.steps == 7


def test_everything_else_stays():
    new = changed("--train.steps", "5")
    assert dataclasses.replace(new, train=dataclasses.replace(new.train, steps=600)) == BASE
    assert changed() is BASE


@pytest.mark.parametrize("order", [1, -1])
def test_switches_in_any_order(order):
    words = [
        ["optimizer:lion"],
        ["optimizer.schedule:linear"],
        ["--optimizer.schedule.peak", "2e-4"],
        ["--train.steps", "5"],
    ]
    new = apply(BASE, [word for group in words[::order] for word in group])
    assert new.optimizer == c.Lion(schedule=c.Linear(peak=2e-4))
    assert new.train.steps == 5
    pair = ["--model.position.length=512", "model.position:learned"][::order]
    assert apply(BASE, pair).model.position == c.Learned(512)


def test_switches_after_a_tuple_and_by_flag():
    new = changed("--samples.prompts", "a", "model.position:learned")
    assert new.samples.prompts == ("a",)
    assert new.model.position == c.Learned()
    assert changed("--model.position", "learned").model.position == c.Learned()


def test_switch_to_the_present_member_keeps_its_values():
    assert changed("optimizer:adamw") == BASE


def test_every_alternative_can_be_chosen():
    seen = 0
    for path, one in choices(BASE).items():
        for cls in filter(has_default, one.classes):
            assert type(choices(changed(f"{path}:{option_name(cls)}"))[path].value) is cls
            seen += 1
    assert seen >= 20


def test_every_reachable_path_can_be_set():
    words = {str: "word", int: "3", float: "0.5", bool: "true"}
    for path, switches in reachable(BASE).items():
        hint = leaves(apply(BASE, list(switches)))[path].hint
        plain = next((words[kind] for kind in words if kind in (hint, *getattr(hint, "__args__", ()))), None)
        word = plain or str(hint.__args__[-1])
        assert path in leaves(changed(*switches, f"--{path}", word)), path


def test_a_field_of_one_layer_of_a_pattern():
    pattern = c.Pattern(period=(c.Block(), c.Block(attention=c.Attention(window=8))))
    tree = dataclasses.replace(BASE, model=dataclasses.replace(BASE.model, block=pattern))
    new = changed("--model.block.period.0.attention.window", "128", "model.block.period.1.mlp:plain", tree=tree)
    assert [one.attention.window for one in new.model.block.period] == [128, 8]
    assert new.model.block.period[1].mlp == c.Plain()
    assert changed("model.block:block", tree=tree).model.block == c.Block()
    assert "in the experiment's file" in refused("model.block:pattern")


def test_the_next_number_is_one_more():
    rounded = dataclasses.replace(BASE, quantization=c.Rounded())
    words = ["quantization.rules.1.activations:dynamic", "--quantization.rules.0.targets", "down$"]
    more = ["--quantization.rules.1.format.bits", "4", "--quantization.rules.2.targets", "head"]
    for tree, switch in ((rounded, []), (BASE, ["quantization:rounded"])):
        rules = changed(*more, *words, *switch, tree=tree).quantization.rules
        assert rules[0] == c.Rule("down$")
        assert rules[1] == c.Rule(format=c.Integers(4), activations=c.Dynamic())
        assert rules[2] == c.Rule("head")
    mixed = changed("quantization.rules.2.format:nf4", "--quantization.rules.1.targets", "x", tree=rounded)
    assert [type(rule.format) for rule in mixed.quantization.rules] == [c.Integers, c.Integers, c.Nf4]
    many = [word for place in range(11, 0, -1) for word in (f"--quantization.rules.{place}.targets", str(place))]
    assert [rule.targets for rule in changed(*many, tree=rounded).quantization.rules[1:]] == [
        str(place) for place in range(1, 12)
    ]
    learned = changed("objective.features.0:relations", "objective:distillation").objective
    assert learned.features == (c.Relations(),)
    assert "rules.2" in refused("--quantization.rules.2.targets", "x", tree=rounded)
    assert "rules.2" in refused("quantization.rules.2.format:nf4", tree=rounded)
    assert "rules.x" in refused("--quantization.rules.x.targets", "y", tree=rounded)


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        (["--train.batch", "x"], ["--train.batch", "'x'", "an integer"]),
        (["--train.steps", "1.5"], ["--train.steps", "'1.5'", "an integer"]),
        (["--train.clip", "nan"], ["--train.clip", "'nan'", "a number or none"]),
        (["--precision", "fp8"], ["--precision", "'fp8'", "float32, bfloat16, bfloat16_all"]),
        (["--train.steps"], ["--train.steps", "no value"]),
        (["--train.steps", "1", "2"], ["--train.steps", "one value", "1 2"]),
    ],
)
def test_a_wrong_value_is_one_line(argv, parts):
    text = refused(*argv)
    assert "\n" not in text
    assert all(part in text for part in parts), text


def test_names_that_are_not_there():
    assert "add model.position:learned" in refused("--model.position.length", "3")
    assert "--train.batch" in refused("--batch", "3").split("\n")[1]
    assert "--optimizer " in refused("--optimiser", "lion").split("\n")[1]
    assert "model.position:learned" in refused("model.position:lerned").split("\n")[1]
    assert "model.position:rope" in refused("model.positoin:rope").split("\n")[1]
    assert "is a group" in refused("--model.block.attention", "3")
    assert "unexpected word 'foo'" in refused("foo")
    assert len(refused("--train.batsh", "3").split("\n")) == 4


def typos(word: str, draw: random.Random) -> list[str]:
    """One typo of each kind at a random place."""
    i = draw.randrange(len(word) - 1)
    other = draw.choice([letter for letter in string.ascii_lowercase if letter != word[i]])
    swapped = word[:i] + word[i + 1] + word[i] + word[i + 2 :]
    return [word[:i] + other + word[i + 1 :], word[:i] + word[i + 1 :], word[:i] + other + word[i:], swapped]


def test_typos_name_the_right_field_first():
    draw, paths = random.Random(0), list(reachable(BASE))
    told_apart = [path for path in paths if not re.search(r"\.\d+\.", path)]  # of two numbers either may be meant
    sample = [(path, bad) for path in told_apart for bad in typos(path, draw) if bad not in paths]
    right = sum(nearest(bad, paths, 1) == [path] for path, bad in sample)
    assert len(sample) > 250
    assert right >= 0.99 * len(sample), f"{right} of {len(sample)}"


def test_typos_in_the_message():
    draw = random.Random(1)
    for path in draw.sample(sorted(leaves(BASE)), 10):
        for bad in typos(path, draw):
            if bad not in reachable(BASE):
                assert refused(f"--{bad}", "1").split("\n")[1].split()[0] == f"--{path}"
