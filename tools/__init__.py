"""Checks on the repository itself: its layers and sizes, and its notebooks."""
