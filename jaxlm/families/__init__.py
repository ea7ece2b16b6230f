"""Models of the literature by name and size. Imports neither jax nor numpy."""
