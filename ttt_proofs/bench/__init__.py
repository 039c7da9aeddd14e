"""Measurements: how fast the forms and kernels are, on what, and whether they were right."""
