"""Numba kernels on arrays and scalars; they import nothing of ours but each other."""
