"""Data sets and label files: where they come from, how they are read and corrupted."""
