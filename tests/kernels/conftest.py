"""Kernels run in Triton's interpreter where there is no CUDA device.

Triton reads the switch when a kernel is decorated, so it is set before anything imports triton.
"""

import os
import sys

import torch

if not torch.cuda.is_available() and "triton" not in sys.modules:
    os.environ.setdefault("TRITON_INTERPRET", "1")
