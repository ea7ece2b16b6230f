"""Experiments are found by file and by module; whatever is wrong with one is said in a line."""

import subprocess
import sys

import pytest

from jaxlm.config import Choices, Generation, Records
from jaxlm.config.errors import UsageError
from jaxlm.config.load import load_experiment, load_tasks
from jaxlm.config.sampling import Options
from jaxlm.config.task_check import check_task


def refused(name) -> str:
    with pytest.raises(UsageError) as error:
        load_experiment(str(name))
    return str(error.value)


def test_file_and_module():
    assert load_experiment("experiments/quickstart.py") == load_experiment("experiments.quickstart")


def test_no_experiment_imports_jax():
    code = (
        "import sys, pathlib; from jaxlm.config.load import load_experiment, load_tasks\n"
        "from jaxlm.config.load import load_study\n"
        "from jaxlm.config.task_check import check_task\n"
        "from jaxlm.study.plan import arms_of\n"
        "for path in pathlib.Path('experiments').rglob('*.py'):\n"
        "    if 'benchmarks' in path.parts or path.name == '__init__.py': continue\n"
        "    if 'evaluations' in path.parts: [check_task(one) for one in load_tasks(str(path))]\n"
        "    elif 'ablations' in path.parts: arms_of(load_study(str(path)))\n"
        "    else: load_experiment(str(path))\n"
        "    assert not {'jax', 'numpy'} & set(sys.modules), path\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_name_that_is_nearly_there():
    assert "experiments/quickstart.py" in refused("experiments/quikstart.py")
    assert "experiments/quickstart.py" in refused("quickstart.py")
    assert "experiments/quickstart.py" in refused("quickstart")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 1\n", "no function experiment()"),
        ("def experiment():\n    return 3\n", "returned int, expected Experiment"),
        ("def experiment():\n    return 1 / 0\n", ":2: ZeroDivisionError"),
        ("def experiment(:\n", ":1: "),
        ("import no_such_module\n", ":1: ModuleNotFoundError: No module named 'no_such_module'"),
        ("import sys\nsys.exit(3)\n", ":2: SystemExit"),
    ],
)
def test_what_is_wrong_with_a_file(tmp_path, source, message):
    file = tmp_path / "mine.py"
    file.write_text(source)
    text = refused(file)
    assert text.startswith(str(file))
    assert message in text
    assert "\n" not in text


def test_wrong_types_are_listed(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from jaxlm.config import *\n"
        "def experiment():\n"
        "    model = Decoder(position=Rope, norm=Tied(), block=Pattern(period=(Block(), 3)))\n"
        "    train = Train(steps='600', clip=1, ema=True)\n"
        "    samples = Samples(prompts=['a'])\n"
        "    return Experiment(name='x', model=model, train=train, samples=samples, precision='fp8')\n"
    )
    lines = refused(file).split("\n")
    assert lines[0] == f"{file}: wrong types"
    assert [line.split()[0] for line in lines[1:]] == [
        "model.block.period.1",
        "model.position",
        "model.norm",
        "train.steps",
        "train.ema",
        "precision",
        "samples.prompts",
    ]
    assert lines[3].endswith("expected rms_norm or layer_norm or zero_centered or unbiased")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 1\n", "no function tasks(); add `def tasks() -> tuple[Task, ...]"),
        ("def tasks():\n    return []\n", "tasks() returned list, expected a tuple with tasks"),
        ("def tasks():\n    return (3,)\n", "tasks() has a int, expected one of Perplexity, Choices"),
        ("from jaxlm.config import LastWord\ndef tasks():\n    return (LastWord(), LastWord())\n", "several tasks"),
        (
            "from jaxlm.config import Choices\ndef tasks():\n    return (Choices(normalizations=('char',)),)\n",
            "choices: wrong types\n  normalizations.0 is 'char', expected one of none, token, character, byte, pmi",
        ),
        (
            "from jaxlm.config import Generation\ndef tasks():\n    return (Generation(metrics=('exact',)),)\n",
            "generation: wrong types\n  metrics.0 is 'exact', expected one of exact_match, number, f1",
        ),
    ],
)
def test_what_is_wrong_with_a_file_of_tasks(tmp_path, source, message):
    file = tmp_path / "mine.py"
    file.write_text(source)
    with pytest.raises(UsageError) as error:
        load_tasks(str(file))
    assert str(error.value).startswith(str(file))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("task", "said"),
    [
        (Generation(draw=Options(samples=2, temperature=0.0)), "greedy ones are all the same"),
        (Generation(passes=(2,)), "passes has 2: expected 1 to draw.samples = 1"),
        (Generation(metrics=("f1",), vote=True), "which f1 cannot be"),
        (Generation(metrics=()), "metrics is empty"),
        (Generation(pattern="("), "pattern is '(', which is no regular expression"),
        (Generation(stop=("\n", "")), "stop has an empty text"),
        (Choices(normalizations=()), "normalizations is empty"),
        (Choices(name="a/b"), "name is 'a/b'"),
        (Choices(data=Records(limit=-1)), "data.limit is -1"),
    ],
)
def test_what_is_wrong_with_a_task(task, said):
    with pytest.raises(UsageError) as error:
        check_task(task)
    assert said in str(error.value)
