"""The witnesses: what they saw, never mixed with what is proved."""
