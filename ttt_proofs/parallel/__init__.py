"""PyTorch forms of a loop, built from the code that the proved expressions give."""
