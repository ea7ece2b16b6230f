"""How good a model is, in numbers that say how sure they are."""
