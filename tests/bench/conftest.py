"""Kernels run in Triton's interpreter where there is no CUDA device, as in tests/kernels."""

import os
import sys

import torch

if not torch.cuda.is_available() and "triton" not in sys.modules:
    os.environ.setdefault("TRITON_INTERPRET", "1")
