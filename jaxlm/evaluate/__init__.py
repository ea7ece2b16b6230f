"""What trained models know: tasks over local files, each number with its interval."""
