"""There is one door for each thing, and it is shut."""

import ast
import subprocess
import sys
from pathlib import Path

import jax
import pytest

import jaxlm
from jaxlm.layers.contracts import Call
from jaxlm.parallel.layout import single_device
from jaxlm.parallel.mesh import AXES

PACKAGE = Path(jaxlm.__file__).parent
SCOPES = ("projection", "position", "attention", "moe", "wkv", "head")


def sources(*rooms: str) -> dict[str, ast.AST]:
    files = [path for room in rooms for path in sorted((PACKAGE / room).rglob("*.py"))]
    assert files
    return {path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text()) for path in files}


def test_log_probabilities_have_one_door():
    allowed = ("layers/logprob.py", "layers/attention/", "layers/moe/")
    for name, tree in sources(".").items():
        used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        used |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        assert name.startswith(allowed) or not used & {"logsumexp", "log_softmax"}, name


def test_models_name_no_mesh_axis():
    for name, tree in sources("layers", "models", "objectives").items():
        constants = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
        assert not constants & set(AXES), name


OUTSIDE = {
    *("argparse", "asyncio", "concurrent", "datetime", "http", "io", "multiprocessing", "os", "pathlib", "random"),
    *("secrets", "select", "shutil", "signal", "socket", "sqlite3", "ssl", "subprocess", "sys", "tempfile"),
    *("threading", "time", "urllib"),
}


def imported(tree: ast.AST) -> set[str]:
    """Modules that a file names in its imports, wherever they stand."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {one.name for one in node.names}
        if isinstance(node, ast.ImportFrom):
            found |= {node.module} | {f"{node.module}.{one.name}" for one in node.names}
    return found


def test_what_computes_sees_nothing_of_the_world():
    """No files, clocks or network, but for the client of a teacher, which nothing else of its room imports."""
    met = set()
    for name, tree in sources(
        "layers", "models", "objectives", "adapters", "quantize", "sampling", "distill"
    ).items():
        modules = imported(tree)
        outside = {module.split(".")[0] for module in modules} & OUTSIDE
        if name.startswith("distill/api/"):
            met |= outside
            continue
        assert not outside, name
        assert not any(module.startswith("jaxlm.distill.api") for module in modules), name
    assert {"time", "urllib", "sqlite3"} <= met


def products(jaxpr) -> list[str]:
    """The name stack of every dot_general and its ragged form, inner computations included."""
    found = []
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("dot_general", "ragged_dot_general"):
            found.append(str(equation.source_info.name_stack))
        for inner in jax.core.jaxprs_in_params(equation.params):
            outer = str(equation.source_info.name_stack)
            found += [f"{outer}/{name}" for name in products(inner)]
    return found


def test_products_lie_under_their_scopes(kind, form, make, tokens):
    lie_under_their_scopes(make(kind, form), tokens)


def test_products_of_positions_lie_under_their_scopes(position, form, make, tokens):
    lie_under_their_scopes(make(position, form), tokens)


def lie_under_their_scopes(model, tokens):
    call = Call(single_device())

    def forward(model):
        memory = model.encode(tokens, call) if hasattr(model, "encoder") else None
        return model.logits(model(tokens, call, memory=memory).hidden, call)

    found = products(jax.make_jaxpr(forward)(model).jaxpr)
    assert len(found) >= 7
    for stack in found:
        assert any(scope in stack for scope in SCOPES), stack


def test_rooms_import_one_way():
    lint = Path(sys.executable).with_name("lint-imports")
    if not lint.exists():
        pytest.skip("import-linter is not installed")
    result = subprocess.run([lint], cwd=PACKAGE.parent, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout
