"""Experiments side by side: arms, seeds, budgets, and what can be said of their differences."""
