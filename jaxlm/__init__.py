"""The whole life of a language model as pure functions in JAX."""

__version__ = "0.1.0"
