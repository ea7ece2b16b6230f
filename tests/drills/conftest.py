"""One ground for all drills of a session: what one of them compiled or prepared, the others find."""

import os

import pytest

from tests.drills.drill import Ground, text


@pytest.fixture(scope="session")
def ground(tmp_path_factory) -> Ground:
    path = tmp_path_factory.mktemp("ground")
    shared = path / "shared"
    shared.mkdir()
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        (shared / "compiled").symlink_to(os.environ["JAX_COMPILATION_CACHE_DIR"])
    text(path / "text")
    return Ground(path, shared)


@pytest.fixture(scope="session")
def straight(ground):
    """`straight(*words, devices=)`: the name of a run of these words that nothing disturbed, made once."""
    made: dict[tuple, str] = {}

    def run(*words: str, devices: int = 1) -> str:
        key = (words, devices)
        if key not in made:
            made[key] = f"straight-{len(made)}"
            ground.finish(made[key], *words, devices=devices)
        return made[key]

    return run
