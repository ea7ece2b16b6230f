"""Run directories: one writer, a journal that survives being killed, and the record of each attempt."""
