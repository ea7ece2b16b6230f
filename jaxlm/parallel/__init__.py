"""Meshes and the one table from logical axes to mesh axes. Knows no model."""
