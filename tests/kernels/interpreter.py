"""Triton's interpreter: importing this switches it on where there is no CUDA device.

Triton reads the switch when a kernel is decorated, so it is set before anything imports triton.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

if not torch.cuda.is_available() and "triton" not in sys.modules:
    os.environ.setdefault("TRITON_INTERPRET", "1")


@contextmanager
def patched_once_a_launch() -> Iterator[None]:
    """The interpreter patches `triton.language` at each call of a device function: once will do.

    What it changes stays changed until the launch ends, so the calls after the first find nothing
    to change; looking for it takes two fifths of the time of these tests.
    """
    from triton import language
    from triton.runtime import interpreter

    inner: Any = interpreter
    patch, run = inner._patch_lang, inner.GridExecutor.__call__
    known: dict[Callable, set[str]] = {}
    done: set[str] = set()  # modules, in this launch

    def once(function: Callable) -> Any:
        if function not in known:
            modules = (language, language.core)
            known[function] = {
                x.__name__
                for x in function.__globals__.values()
                if any(x is module for module in modules)
            }
        if known[function] <= done:
            return inner._LangPatchScope()  # nothing to take back
        done.update(known[function])
        return patch(function)

    def launch(self: Any, *arguments: Any, **options: Any) -> None:
        done.clear()
        try:
            run(self, *arguments, **options)
        finally:
            done.clear()

    inner._patch_lang, inner.GridExecutor.__call__ = once, launch
    try:
        yield
    finally:
        inner._patch_lang, inner.GridExecutor.__call__ = patch, run
