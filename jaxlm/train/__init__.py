"""Training: state, step, optimizers, checkpoints."""
