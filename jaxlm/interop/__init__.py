"""Models in and out: other libraries' files."""
