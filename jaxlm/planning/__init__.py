"""What a run will come to on chips that are not there: compiled ahead of time, read, and explained."""
