"""Compilers for chips that are not there."""

import jax
import pytest

from jaxlm.planning import topology


@pytest.fixture
def compilers():
    """Environment of `jaxlm plan`; without the compilers the test is skipped by name."""
    pytest.importorskip("libtpu")
    # set for good: libtpu reads them when it is loaded, once in a process
    topology.environment(topology.parse("v5p:2x2x1"))
    # other tests compile quickly and badly
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)
