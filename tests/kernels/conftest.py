"""Kernels run in Triton's interpreter where there is no CUDA device."""

from importlib.util import find_spec

import pytest

from tests.kernels.interpreter import patched_once_a_launch  # switches it on


@pytest.fixture(autouse=True, scope="session")
def quick_interpreter():
    """See `patched_once_a_launch`."""
    if find_spec("triton") is None:
        yield
        return
    with patched_once_a_launch():
        yield
