"""The comparison of attention backends runs, skips what is too large, and sees results that differ."""

import numpy as np
import pytest

from tests.experiments.scripts import load

attention = load("attention")
NAMES = attention.PASSES["gradient"]


def test_two_backends_take_turns_and_agree(tmp_path):
    options = attention.parse(["--backends", "xla", "ring", "--rounds", "2"])
    found = attention.measured(256, "gradient", options, tmp_path)
    for name in NAMES:
        xla, ring = (found[one]["arrays"][name] for one in ("xla", "ring"))
        assert xla.shape == (1, 256, 4, 64)
        assert xla.std() > 0.05
        assert attention.difference(ring, xla) < attention.TOLERANCE["float32"]
        # A row in the order of the devices would not be the same.
        assert attention.difference(np.roll(ring, 1, axis=1), xla) > 100 * attention.TOLERANCE["float32"]
    assert all(len(one["seconds"]) == 2 and one["peak"] > 2**26 for one in found.values())
    # Operands, output and gradients of a row, and scores of four heads.
    assert found["xla"]["asks"] > 4 * (8 * 256 * 256 + 4 * 256 * 256)


def test_documents_of_a_row_and_a_window(tmp_path):
    options = attention.parse(
        ["--documents", "5", "--window", "40", "--rounds", "1", "--backends", "xla", "chunked"]
    )
    case = attention.Case("xla", 256, "forward", "float32", "cpu", 5, 40, 4.0, "")
    positions, segments = attention.documents(case)
    assert sorted(set(segments[0])) == [1, 2, 3, 4, 5]
    assert (positions[0] == 0).sum() == 5
    found = attention.measured(256, "gradient", options, tmp_path)
    for word, value in (("--documents", "5"), ("--window", "40")):
        lacking = attention.parse([word, value, "--rounds", "1", "--backends", "xla"])
        other = attention.measured(256, "gradient", lacking, tmp_path)["xla"]
        for name in NAMES:
            xla, chunked = (found[backend]["arrays"][name] for backend in ("xla", "chunked"))
            assert attention.difference(chunked, xla) < attention.TOLERANCE["float32"]
            assert attention.difference(other["arrays"][name], xla) > 100 * attention.TOLERANCE["float32"]


def test_what_asks_for_too_much_is_not_run(tmp_path):
    options = attention.parse(["--backends", "xla", "--limit", "0.001"])
    found = attention.measured(512, "forward", options, tmp_path)
    assert found["xla"].keys() == {"asks"}
    assert attention.cell({"asks": 17.25 * 2**30}, None, 0.0).strip() == "not run: asks 17.2 GiB"


@pytest.fixture
def fake(monkeypatch):
    """Measurements that nobody made, in which one backend's last array can be wrong by some amount."""

    def with_error(error):
        def measured(length, passed, options, folder):
            right = {name: np.ones((1, length, 4, 64), np.float32) for name in attention.PASSES[passed]}
            wrong = right | {list(right)[-1]: right[list(right)[-1]] + np.float32(error)}
            one = {"asks": 2**20, "seconds": [0.25, 0.5, 1.0], "peak": 2**30}
            return {
                "xla": one | {"arrays": right},
                "chunked": one | {"seconds": [0.5, 0.5, 0.5], "arrays": wrong},
                "blocks": {"asks": 5 * 2**30},
            }

        monkeypatch.setattr(attention, "measured", measured)

    return with_error


def test_a_table_of_agreement_and_of_difference(fake, capsys):
    options = attention.parse(["--backends", "xla", "chunked", "blocks"])
    fake(0)
    assert attention.compare(256, options)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:8] == ["256", "xla", "1", "500.0", "1.00", "(0.50-2.00)", "1,024", "0e+00"]
    assert lines[1].split()[:7] == ["256", "chunked", "1", "500.0", "1", "1,024", "0e+00"]
    assert lines[2].count("not run: asks 5.0 GiB") == 2
    fake(1e-5)
    assert attention.compare(256, options)
    fake(1e-3)
    assert not attention.compare(256, options)


def test_gradients_of_torch_in_bfloat16_are_only_shown(monkeypatch, capsys):
    def measured(length, passed, options, folder):
        ones = {name: np.ones((1, length, 4, 64), np.float32) for name in attention.PASSES[passed]}
        apart = {name: value + np.float32(0.5 * (name not in exact)) for name, value in ones.items()}
        one = {"asks": None, "seconds": [1.0], "peak": 2**30}
        return {"xla": one | {"arrays": ones}, "torch": one | {"arrays": apart}}

    monkeypatch.setattr(attention, "measured", measured)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    options = attention.parse(["--backends", "xla", "torch"])
    exact = ("output",)
    assert not attention.compare(256, options)
    options.precision = "bfloat16"
    assert attention.compare(256, options)
    assert "5e-01" in capsys.readouterr().out
    exact = ()
    assert not attention.compare(256, options)


def test_on_a_gpu_torch_is_judged_and_not_beside_documents(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    options = attention.parse(["--device", "gpu"])
    assert (options.backends, options.precision) == (["torch", "cudnn", "xla", "blocks", "chunked"], "bfloat16")
    assert "torch" not in attention.parse(["--device", "gpu", "--documents", "2"]).backends
    ones = {name: np.ones((1, 256, 32, 128), np.float32) for name in NAMES}
    one = {"asks": None, "seconds": [1.0], "peak": 2**30}
    wrong = {name: 1.5 * value for name, value in ones.items()}
    found = {"xla": one | {"arrays": ones}, "torch": one | {"arrays": wrong}}
    monkeypatch.setattr(attention, "measured", lambda *_: found)
    assert not attention.compare(256, options)


def test_without_torch(monkeypatch, capsys):
    assert attention.parse(["--backends", "torch", "xla"]).backends[-1] == "xla"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    options = attention.parse([])
    assert options.backends == ["xla", "blocks", "chunked", "ring", "all_to_all"]
    assert options.against == "chunked"
    assert "pip install 'jaxlm[parity]'" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--lengths", "1000"], "1000 is no multiple of 256"),
        (["--lengths", "0"], "0 is no multiple of 256"),
        (["--backends", "flash"], "invalid choice: 'flash'"),
        (["--backends", "cudnn"], "--backends cudnn: not on a cpu; there are torch, xla"),
        (["--device", "gpu", "--backends", "ring"], "--backends ring: not on a gpu"),
        (["--documents", "0"], "invalid whole number of at least 1 value: '0'"),
        (["--limit", "0"], "0 is no size of memory"),
        (["--limit", "nan"], "nan is no size of memory"),
        (["--rounds", "0"], "invalid whole number of at least 1 value: '0'"),
        (["--precision", "float16"], "invalid choice: 'float16'"),
    ],
)
def test_wrong_words(words, said, capsys):
    with pytest.raises(SystemExit) as error:
        attention.parse(words)
    assert error.value.code == 2
    assert said in capsys.readouterr().err
