"""Triton kernels for the forms that a loop reduces to, forward and backward.

Layout, names and returns are those of flash-linear-attention: q, k `[B, T, H, K]`,
v `[B, T, H, V]`, numbers of a token `[B, T, H]`, states float32 `[B, H, K, V]`; an operator
returns `(o, final_state)`. Names are loaded when first used: this package can be imported
without Triton, and only its operators need it.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .additive import linear_attention
    from .delta import delta_rule
    from .swiglu import swiglu_attention, swiglu_features
    from .with_momentum import momentum_attention

# No module has an operator's name: once loaded it would be the attribute.
_HOME = {
    "delta_rule": "delta",
    "linear_attention": "additive",
    "momentum_attention": "with_momentum",
    "swiglu_attention": "swiglu",
    "swiglu_features": "swiglu",
}

__all__ = [
    "delta_rule",
    "linear_attention",
    "momentum_attention",
    "swiglu_attention",
    "swiglu_features",
]


def __getattr__(name: str) -> Any:
    """Load an operator from the module that defines it.

    Raises ImportError where Triton is not installed, AttributeError for an unknown name.
    """
    if name not in _HOME:
        raise AttributeError(f"module `{__name__}` has no `{name}`; it has {', '.join(__all__)}.")
    if find_spec("triton") is None:
        raise ImportError(
            f"`{name}` needs Triton, which is not installed. Install it with `pip install triton`."
        )
    value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The operators."""
    return sorted(__all__)
