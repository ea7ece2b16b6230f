"""Small trained changes to a frozen model's weights."""
