"""How nbval compares a notebook: by what it says in plain text, printed or displayed.

Formulas, tables and pictures are drawn from the same records, and are drawn a little
differently by each version of the libraries that draw them.
"""

DRAWN = (
    "text/latex",
    "text/html",
    "text/markdown",
    "image/svg+xml",
    "image/png",
    "image/jpeg",
    "application/javascript",
    "stderr",
)


def pytest_collectstart(collector):
    """Leave the drawn forms out of the comparison."""
    if hasattr(collector, "skip_compare"):
        collector.skip_compare += DRAWN
