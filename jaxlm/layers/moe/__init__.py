"""Mixtures of experts: a router, a way to bring tokens to their experts and back, and the experts' products."""
