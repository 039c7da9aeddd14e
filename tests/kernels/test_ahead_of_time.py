"""Every kernel compiles for Hopper, without a device, into what a multiprocessor has.

One launch of each kernel in bfloat16, at the widths 64 and 128, that with the most tensors;
`python tests/kernels/ahead_of_time.py` compiles all launches, dtypes and modes.
"""

from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("triton")

from tests.kernels.ahead_of_time import fullest, respecialised, signature_of, subprocess_lines

SHARED = 227 * 1024  # bytes that a Hopper multiprocessor has for one program
# Bytes that a thread may keep outside its registers, where sums fill them. How many it does hangs
# on Triton's version: `attend_kernel` at 128 keeps 308 with 3.7 and 168 with 3.9. Cutting its
# columns in half would keep less, and make every feature twice.
SPILLS = {"attend_kernel": 320}
OPERATORS = ("momentum", "delta", "swiglu")  # the last runs the additive kernels too
ELEMENTWISE = {"gated_kernel", "gated_gradient_kernel"}
KERNELS = ELEMENTWISE | {
    "forward_kernel",
    "reverse_kernel",
    "numbers_kernel",
    "couple_tiles",
    "delta_rule_forward",
    "delta_rule_reverse",
    "delta_rule_inputs",
    "attend_kernel",
}
LARGE = KERNELS - ELEMENTWISE - {"numbers_kernel", "couple_tiles"}  # products of whole tiles


@pytest.mark.parametrize("width", [64, 128])
def test_each_kernel_compiles_for_hopper(width):
    lines = subprocess_lines("--fullest", *(f"{name}/bf16/{width}" for name in OPERATORS))
    assert {line["kernel"] for line in lines} == KERNELS
    for line in lines:
        print(line)
        name = line["kernel"]
        assert line["bytes"] > 0 and line["shared"] <= SHARED and line["registers"] <= 255
        assert line["spills"] <= (0 if name in ELEMENTWISE else SPILLS.get(name, 256)), line
        assert (line["tensor_cores"] > 0) == (name not in ELEMENTWISE), line
        assert line["wgmma"] > 0 or name not in LARGE, line
        assert not line["respecialised"], line


def parameters(**kinds):
    """A kernel's parameters: `constexpr`, `fixed` for an integer that is not specialised, or ""."""
    params = [
        SimpleNamespace(
            name=name, is_constexpr=kind == "constexpr", do_not_specialize=kind == "fixed"
        )
        for name, kind in kinds.items()
    ]
    return SimpleNamespace(params=params, arg_names=list(kinds))


def test_arguments_have_the_types_that_a_launch_gives_them():
    kernel = parameters(x="", y="", T="fixed", N="", scale="", WIDTH="constexpr")
    launch = (kernel, (torch.empty(1, dtype=torch.half), None, 3, 4, 0.5), {"WIDTH": 8})
    types, constants, aligned = signature_of(launch)
    assert types == {
        "x": "*fp16",
        "y": "constexpr",
        "T": "i32",
        "N": "i32",
        "scale": "fp32",
        "WIDTH": "constexpr",
    }
    assert constants == {(1,): None, (5,): 8} and list(aligned) == [(0,)]
    assert respecialised(launch) == ["N"]


def test_the_fullest_launch_of_each_kernel():
    one, other, x = object(), object(), torch.empty(1)
    found = [(one, (x, None), {}), (other, (None,), {}), (one, (x, x), {}), (one, (None, x), {})]
    assert fullest(found) == [found[2], found[1]]
