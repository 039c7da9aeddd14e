"""What operators take, as far as it can be asked without Triton."""

import torch

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
DEVICES = ("cuda", "cpu")  # on the CPU in Triton's interpreter
MAX_WIDTH = 256  # of a token's features, which are one block of a kernel
