"""Records of steps as text, Markdown, LaTeX and HTML. Alone knows how things look."""

from .document import FORMATS, render_derivation
from .html import proof_html
from .latex import latex, proof_latex, statement_latex
from .markdown import proof_markdown
from .text import proof_text, statement_text, text

__all__ = [
    "FORMATS",
    "latex",
    "proof_html",
    "proof_latex",
    "proof_markdown",
    "proof_text",
    "render_derivation",
    "statement_latex",
    "statement_text",
    "text",
]
