"""Experiments are found by file and by module; whatever is wrong with one is said in a line."""

import subprocess
import sys

import pytest

from jaxlm.config.errors import UsageError
from jaxlm.config.load import load_experiment


def refused(name) -> str:
    with pytest.raises(UsageError) as error:
        load_experiment(str(name))
    return str(error.value)


def test_file_and_module():
    assert load_experiment("experiments/quickstart.py") == load_experiment("experiments.quickstart")


def test_no_experiment_imports_jax():
    code = (
        "import sys, pathlib; from jaxlm.config.load import load_experiment\n"
        "for path in pathlib.Path('experiments').rglob('*.py'):\n"
        "    if 'benchmarks' in path.parts or path.name == '__init__.py': continue\n"
        "    load_experiment(str(path))\n"
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
