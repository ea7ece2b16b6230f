"""Models of transformers, written once."""

import pytest


@pytest.fixture(scope="session")
def published(tmp_path_factory):
    """`published(case)`: (directory, the reference), every parameter random, made once."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from tests.interop import references

    made = {}

    def make(case):
        if case not in made:
            directory = tmp_path_factory.mktemp("model")
            made[case] = directory, references.write(case, directory)
        return made[case]

    return make
