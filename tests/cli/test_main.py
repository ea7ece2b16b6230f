"""The front door as a user meets it: exit codes, messages, and what is not imported."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

import jaxlm.cli
from jaxlm.cli import COMMANDS, main
from jaxlm.config.errors import Failure

HEAVY = {"jax", "numpy", "tyro", "flax", "rich"}


def ask(capsys, *words):
    code = main(list(words))
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--help"], 0, "usage: jaxlm COMMAND"),
        (["run", "--help"], 0, "usage: jaxlm run EXPERIMENT"),
        (["rnu"], 2, "no command 'rnu'; did you mean run?"),
        (["run", "tests/base.py", "--help"], 0, "--train.batch"),
        (["run", "tests/base.py", "--train.batsh", "3"], 2, "--train.batch"),
        (["run", "experiments/quikstart.py"], 2, "experiments/quickstart.py"),
        (["show", "tests/base.py"], 0, "4,262,144"),
    ],
)
def test_answers_without_jax_in_half_a_second(words, code, said):
    # processor time, as the wall clock says little on a busy machine
    program = (
        "import sys; from jaxlm.cli import main\n"
        f"code = main(sys.argv[1:]); heavy = {HEAVY!r} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "import time; print(time.process_time()); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True)
    assert float(done.stdout.split()[-1]) < 0.5
    assert done.returncode == code, done.stderr
    assert said in done.stdout + done.stderr
    assert (done.stderr == "") == (code == 0)


def test_every_command_has_help_that_fits_a_terminal(capsys):
    for name in COMMANDS:
        code, out, _ = ask(capsys, name, "--help")
        assert code == 0
        assert out.startswith(f"usage: jaxlm {name}")
        assert max(map(len, out.split("\n"))) <= 110


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["quickstart.py"], "jaxlm: no command quickstart.py; to train it: jaxlm run quickstart.py"),
        (["run"], "jaxlm run: the experiment comes first"),
        (["run", "--train.steps", "3"], "jaxlm run: the experiment comes first"),
        (["run", "tests/base.py", "--run-dir"], "jaxlm run: --run_dir has no value"),
        (["run", "tests/base.py", "--rundir", "x"], "--run_dir"),
        (["run", "tests/base.py", "--init", "nowhere"], "jaxlm run: initial nowhere: no such run"),
        (
            ["run", "tests/base.py", "--profile", "9:3"],
            "--profile 9:3: expected A:B with 0 <= A < B",
        ),
        (["run", "tests/base.py", "--train.batch", "0"], "jaxlm run: train.batch is 0"),
        (["show", "tests/base.py", "--devices", "x"], "--devices x: expected a number"),
        (
            ["show", "tests/base.py", "--devices", "3", "--where.mesh.fsdp", "2"],
            "is not 3 devices",
        ),
        (["generate", "nowhere"], "--prompt; jaxlm generate --help"),
        (["generate", "nowhere", "--prompt", "a"], "jaxlm generate: nowhere does not exist"),
        (["generate", "nowhere", "--prompt", "a", "--top_p", "2"], "--top-p 2.0: expected above 0"),
        (["generate", "nowhere", "--prompt", "a", "--tokens", "x"], "--tokens: invalid int value: 'x'"),
        (["runs", "lst"], "did you mean list?"),
        (["runs", "diff", "a"], "expected jaxlm runs diff A B, got 1 names"),
        (["runs", "list", "nowhere"], "jaxlm runs: no directory nowhere"),
        (["doctor", "x"], "takes no arguments"),
    ],
)
def test_usage_errors(capsys, words, said):
    code, out, err = ask(capsys, *words)
    assert code == 2
    assert said in err
    assert out == ""
    assert "Traceback" not in err


def test_failures_and_interrupts_have_codes_of_their_own(capsys, monkeypatch):
    for error, code in ((Failure("the disk is full"), 1), (KeyboardInterrupt(), 130)):

        def command(_, error=error):
            raise error

        monkeypatch.setattr("jaxlm.cli.doctor.main", command)
        got, _, err = ask(capsys, "doctor")
        assert got == code
        assert err.startswith("jaxlm doctor: ")
        assert err.count("\n") == 1


def test_an_error_of_ours_is_not_hidden(monkeypatch):
    monkeypatch.setattr("jaxlm.cli.doctor.main", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["doctor"])


def test_a_reader_that_leaves_is_no_error():
    command = f"{sys.executable} -m jaxlm show tests/base.py | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout.startswith("base")


def test_dispatch_is_small():
    lines = pathlib.Path(jaxlm.cli.__file__).read_text().count("\n")
    assert lines < 80


def test_show_marks_what_differs_from_the_file(capsys):
    words = ["show", "tests/base.py", "--train.steps", "50", "model.position:learned"]
    code, out, _ = ask(capsys, *words)
    assert code == 0
    marked = [line.split() for line in out.split("\n") if "(file:" in line]
    assert marked == [["position", "learned", "(file:", "rope)"], ["steps", "50", "(file:", "600)"]]
    assert "205k tokens = 50 steps x 16 rows x 256 tokens" in out


def test_generate_options():
    from jaxlm.cli.generate import parse
    from jaxlm.config.sampling import Options

    words = "a/run --prompt hello --tokens 5 --top_k 3 --min-p 0.1 --temperature 0 --samples=2 --reading prefix"
    expected = Options(tokens=5, top_k=3, min_p=0.1, temperature=0.0, samples=2, reading="prefix")
    assert parse(words.split()) == ("a/run", "hello", expected)


FAKE = """
import json, os, sys, types

def run(experiment, run_dir, profile, plans, tasks, after):
    variables = [os.environ.get(name) for name in ("GLIBC_TUNABLES", "JAXLM_REEXEC")]
    print(json.dumps([experiment.train.steps, run_dir, profile, str(plans), variables]))
    return 75

def generate(run, prompt, options):
    for number in range(options.samples):
        yield iter([" a", f" b{number}"])

for name, entry in (("train.run", run), ("serve.generate", generate)):
    for part in (name.split(".")[0], name):
        sys.modules["jaxlm." + part] = types.ModuleType("jaxlm." + part)
    setattr(sys.modules["jaxlm." + name], name.split(".")[1], entry)
"""


@pytest.fixture
def with_fakes(tmp_path):
    """Environment of a process in which training and sampling are stand-ins that tell what they got."""
    (tmp_path / "sitecustomize.py").write_text(FAKE)
    environment = {k: v for k, v in os.environ.items() if k not in ("GLIBC_TUNABLES", "JAXLM_REEXEC")}
    path = os.pathsep.join([str(tmp_path), os.getcwd()])
    return environment | {"PYTHONPATH": path, "JAX_PLATFORMS": "cpu"}


def test_run_hands_over_what_was_asked(with_fakes, tmp_path):
    words = ["tests/base.py", "--train.steps", "7", "--run-dir", "r", "--profile=2:4"]
    done = subprocess.run(
        [sys.executable, "-m", "jaxlm", "run", *words], env=with_fakes, capture_output=True, text=True
    )
    assert done.returncode == 75, done.stderr
    changes, told = done.stdout.strip().split("\n")
    assert changes == "train.steps: 600 -> 7"
    steps, run_dir, profile, plans, variables = json.loads(told)
    assert (steps, run_dir, profile, plans) == (7, "r", [2, 4], "tests/plans")
    assert "glibc.malloc.hugetlb=1" in variables[0]
    assert variables[1] == "1"


def test_generate_prints_prompt_and_text(with_fakes, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    words = ["generate", str(tmp_path / "run"), "--prompt", "-"]
    several = "--- 1 of 2 ---\nonce a b0\n--- 2 of 2 ---\nonce a b1\n"
    for extra, expected in ([], "once a b0\n"), (["--samples", "2"], several):
        done = subprocess.run(
            [sys.executable, "-m", "jaxlm", *words, *extra],
            env=with_fakes,
            input="once",
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stdout) == (0, expected), done.stderr
