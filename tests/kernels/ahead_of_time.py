"""Compile every kernel that an operator launches, for Hopper, on a machine without a GPU.

`python tests/kernels/ahead_of_time.py` compiles all operators, dtypes and widths, and prints
registers, spilled bytes, shared memory and warps of each launch; arguments such as
`momentum/bf16/128`, and `momentum/bf16/128/1` for one segment, pick some, and `--fullest` takes,
of each kernel, only the launch with the most tensors. Operators run on tensors without data, and
each launch is compiled, by Triton's own command line for ptxas, instead of run. With `--races`
launches are compiled only as far as GPU code, and what `races` finds in it is printed.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from itertools import product
from pathlib import Path
from typing import Any

import torch

DTYPES = {
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp32": torch.float32,
    "fp64": torch.float64,
}
TYPES = {dtype: f"*{name}" for name, dtype in DTYPES.items()}
OPERATORS = ("additive", "decay", "momentum", "delta", "swiglu", "features")
Launch = tuple[Any, tuple[Any, ...], dict[str, Any]]  # kernel, arguments, options


def signature_of(launch: Launch) -> tuple[dict[str, str], dict[Any, Any], dict[Any, Any]]:
    """The types, compile-time values and alignments with which Triton would compile a launch."""
    kernel, arguments, options = launch
    given = dict(zip(kernel.arg_names, arguments, strict=False)) | options
    types, constants, aligned = {}, {}, {}
    for n, p in enumerate(kernel.params):
        x = given[p.name]
        if p.is_constexpr or x is None:
            types[p.name], constants[n,] = "constexpr", x
        elif isinstance(x, torch.Tensor):
            types[p.name], aligned[n,] = TYPES[x.dtype], [["tt.divisibility", 16]]
        else:
            types[p.name] = "fp32" if isinstance(x, float) else "i32"
    return types, constants, aligned


def respecialised(launch: Launch) -> list[str]:
    """The integers whose values, such as a sequence's length, would make Triton compile anew."""
    kernel, arguments, _ = launch
    return [
        p.name
        for p, x in zip(kernel.params, arguments, strict=False)
        if isinstance(x, int) and not p.do_not_specialize and not p.is_constexpr
    ]


def compiled(launch: Launch) -> dict[str, Any]:
    """Compile one launch to machine code for sm_90; what it takes of a multiprocessor."""
    import triton
    from triton import knobs
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel, _, options = launch
    run = {name: options[name] for name in ("num_warps", "num_stages")}
    # ptxas says only while it runs what it spills.
    knobs.nvidia.dump_ptxas_log = knobs.compilation.always_compile = True
    with redirect_stdout(StringIO()) as said:
        made = triton.compile(
            ASTSource(kernel, *signature_of(launch)), target=GPUTarget("cuda", 90, 32), options=run
        )
    log = said.getvalue()
    spilled = re.search(r"(\d+) bytes spill stores", log)
    registers = re.search(r"Used (\d+) registers", log)
    if not spilled or not registers:
        raise RuntimeError(f"ptxas must report spills and registers; got {log[-500:]!r}.")
    ptx = made.asm["ptx"]
    return {
        "kernel": kernel.fn.__name__,
        "registers": int(registers[1]),
        "spills": int(spilled[1]),
        "shared": made.metadata.shared,
        "wgmma": ptx.count("wgmma.mma_async"),
        "tensor_cores": len(re.findall(r"\b(?:wgmma\.mma_async|mma\.sync)", ptx)),
        "bytes": len(made.asm["cubin"]),
        "respecialised": respecialised(launch),
        **run,
    }


def raced(launch: Launch) -> dict[str, Any]:
    """The races of one launch, by its GPU code for sm_90; ptxas is not run."""
    from triton._C.libtriton import ir
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, make_backend

    from tests.kernels.races import races

    kernel, _, options = launch
    source, target = ASTSource(kernel, *signature_of(launch)), GPUTarget("cuda", 90, 32)
    backend = make_backend(target)
    run = {name: options[name] for name in ("num_warps", "num_stages")}
    parsed, stages, metadata = backend.parse_options(run | source.parse_options()), {}, {}
    backend.add_stages(stages, parsed, source.language)
    context = ir.context()
    ir.load_dialects(context)
    backend.load_dialects(context)
    makers = backend.get_codegen_implementation(parsed), backend.get_module_map()
    module = source.make_ir(target, parsed, *makers, context)
    for name in ("ttir", "ttgir"):
        module = stages[name](module, metadata)
    return {"kernel": kernel.fn.__name__, "races": list(races(str(module)))}


@contextmanager
def recorded() -> Iterator[list[Launch]]:
    """The launches, in order, none of which runs; operators take tensors without data."""
    from triton.runtime.jit import JITFunction

    from ttt_proofs.kernels import requirements, swiglu

    found: list[Launch] = []

    def record(kernel: Any, *given: Any, grid: Any, warmup: bool, **options: Any) -> None:
        found.append((kernel, given, options))

    changes = {
        (JITFunction, "run"): record,
        (requirements, "check_device"): lambda name, x: None,
        (swiglu, "check_device"): lambda name, x: None,
        (swiglu, "fuses"): lambda q: q.element_size() == 2,
    }
    before = {(home, name): getattr(home, name) for home, name in changes}
    for (home, name), change in changes.items():
        setattr(home, name, change)
    try:
        yield found
    finally:
        for (home, name), kept in before.items():
            setattr(home, name, kept)


def launches(operator: str, dtype: str, width: int, segments: int = 2) -> list[Launch]:
    """Every launch of an operator and its gradients, at one width for all."""
    from ttt_proofs import kernels

    made: Any

    def leaf(*shape: int, of: torch.dtype = DTYPES[dtype]) -> torch.Tensor:
        return torch.empty(*shape, dtype=of, device="meta", requires_grad=True)

    wide = torch.float64 if dtype == "fp64" else torch.float32
    x, numbers = leaf(1, 4096, 2, width), leaf(1, 4096, 2, of=wide)
    state, weight = leaf(1, 2, width, width, of=wide), leaf(2, width, width)
    options: dict[str, Any] = {"output_final_state": True, "initial_state": state}
    with recorded() as found:
        if operator == "momentum":
            options |= {"segments": segments, "initial_state": (state, state)}
            made = kernels.momentum_attention(x, x, x, numbers, numbers, **options)
            made = [made[0], *made[1]]
        elif operator == "delta":
            made = kernels.delta_rule(x, x, x, numbers, **options)
        elif operator == "swiglu":
            made = kernels.swiglu_attention(x, x, x, weight, weight, segments=segments, **options)
        elif operator == "features":
            made = [kernels.swiglu_features(x, weight, weight)]
        else:
            decay = numbers if operator == "decay" else None
            made = kernels.linear_attention(x, x, x, decay=decay, segments=segments, **options)
        torch.autograd.backward(list(made), [torch.empty_like(y) for y in made])
    return found


def fullest(found: list[Launch]) -> list[Launch]:
    """Of each kernel the launch with the most tensors."""

    def tensors(launch: Launch) -> int:
        return sum(isinstance(x, torch.Tensor) for x in launch[1])

    kernels = dict.fromkeys(kernel for kernel, *_ in found)
    return [max((x for x in found if x[0] is kernel), key=tensors) for kernel in kernels]


def main(words: list[str]) -> None:
    """Print one JSON line for each launch of the operators picked, or of all."""
    warnings.simplefilter("ignore")
    picked = [word.split("/") for word in words if not word.startswith("--")]
    choose = fullest if "--fullest" in words else list
    look = raced if "--races" in words else compiled
    for operator, dtype, width, *segments in picked or product(OPERATORS, DTYPES, (64, 128)):
        for launch in choose(launches(operator, dtype, int(width), *map(int, segments))):
            of = {"operator": operator, "dtype": dtype, "width": int(width)}
            print(json.dumps(of | look(launch)), flush=True)


def subprocess_lines(*words: str, script: str | Path = __file__) -> list[dict[str, Any]]:
    """What `main` prints, from a Python whose Triton compiles, not interprets.

    script: this file, or that of another tree, whose package is then the one compiled.
    """
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, script, *words], env=environment, text=True, capture_output=True
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return [json.loads(line) for line in done.stdout.splitlines()]


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    main(sys.argv[1:])
