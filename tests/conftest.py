"""Which cases run: of a test with many cases a few, drawn by name; all with `--all-cases`.

The draw is the same on every machine, and a new case changes no other's. A test marked
`all_cases`, and one named on the command line, run with all of theirs.
"""

from collections import defaultdict
from hashlib import sha256

import pytest

CASES = 6


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option by which every case is run."""
    parser.addoption("--all-cases", action="store_true", help="run every case of every test")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is not drawn."""
    if config.getoption("all_cases") or any("::" in argument for argument in config.args):
        return
    tests: dict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        tests[item.nodeid.partition("[")[0]].append(item)
    kept = {item for cases in tests.values() for item in drawn(cases)}
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = [item for item in items if item in kept]


def drawn(cases: list[pytest.Item]) -> list[pytest.Item]:
    """The cases of a test that are run."""
    if cases[0].get_closest_marker("all_cases"):
        return cases
    return sorted(cases, key=lambda item: sha256(item.nodeid.encode()).digest())[:CASES]
