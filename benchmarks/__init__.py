"""Timings. Each names its reference and measures it in the same run."""
