"""Solution methods, one file each."""
