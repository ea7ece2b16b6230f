"""State, step, loop: training as a pure function and the little that surrounds it."""
