"""The parts that models are made of: frozen pytrees with pure methods, and pure functions."""
