"""Drawing tokens from a model: processors of logits, and the one loop that draws."""
