"""Learning from another model: its distributions, what is inside of it, and what it writes."""
