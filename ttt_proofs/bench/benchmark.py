"""What a benchmark is: cases, each of which yields rows. One that fails yields a row saying so."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch

from ..evidence.tolerances import BETWEEN_FORMS
from .timing import Row, told

Column = tuple[str, str]


class NotRunError(Exception):
    """A benchmark cannot be run here; the message says what is missing."""


@dataclass(frozen=True)
class Settings:
    """device: cpu or cuda. quick: small sizes, for a dry run. deadline: when to stop, if at all.

    The deadline is in seconds of `time.monotonic`; cases that would start later are not run.
    """

    device: str = "cpu"
    quick: bool = False
    deadline: float | None = None

    def pick(self, full: int, quick: int) -> int:
        """The number for the sizes asked for."""
        return quick if self.quick else full


class Case(NamedTuple):
    """What its rows have in common, and the function that measures them."""

    common: Row
    measure: Callable[[], Iterable[Row]]


@dataclass(frozen=True)
class Plot:
    """Which of the rows' numbers to draw: bars, or lines on logarithmic axes.

    x: keys of rows, told together. series: the key that tells the bars of a group, or the lines,
    apart. panels: keys of what is drawn, one beside the other, with labels.
    """

    kind: Literal["bars", "lines"]
    x: tuple[str, ...]
    series: str
    panels: tuple[Column, ...]


@dataclass(frozen=True)
class Benchmark:
    """A name, what it measures in one sentence, the devices that suit it, and its cases.

    columns: keys of the rows that a table shows, with headings.
    """

    name: str
    what: str
    devices: tuple[str, ...]
    cases: Callable[[Settings], Iterable[Case]]
    columns: tuple[Column, ...]
    plot: Plot | None = None

    def run(self, settings: Settings) -> Iterator[Row]:
        """The rows, as they are measured. Errors and missing parts are rows of their own."""
        for case in self.cases(settings):
            if settings.deadline is not None and time.monotonic() > settings.deadline:
                yield {**case.common, "not_run": "the time given was over"}
                continue
            for row in contained(case.measure):
                yield checked({**case.common, **row})
            if settings.device == "cuda":  # the next case needs the memory
                gc.collect()
                torch.cuda.empty_cache()


def contained(measure: Callable[[], Iterable[Row]]) -> Iterator[Row]:
    """The rows, and what ends them early as one more, so that the other cases are still run."""
    try:
        yield from measure()
    except NotRunError as error:
        yield {"not_run": str(error)}
    except Exception as error:
        yield {"problem": told(error)}


def checked(row: Row) -> Row:
    """The row with null for each number that is not finite, and the problem that this is."""
    lost = [key for key, x in row.items() if isinstance(x, float) and not math.isfinite(x)]
    if not lost:
        return row
    problem = f"{', '.join(lost)} not finite"
    if "problem" in row:
        problem = f"{row['problem']}; {problem}"
    return {**row, **dict.fromkeys(lost), "problem": problem}


def relative_error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """`‖found - wanted‖ / ‖wanted‖` in float64; NaN if anything is NaN."""
    found, wanted = found.detach().double(), wanted.detach().double()
    return float((found - wanted).norm() / wanted.norm().clamp_min(torch.finfo(torch.float64).tiny))


def worst_error(found: Iterable[torch.Tensor], wanted: Iterable[torch.Tensor]) -> float:
    """The largest relative error of tensors in pairs; NaN if there is one."""
    return max(map(relative_error, found, wanted), key=lambda e: (e != e, e))


def error_row(error: float, dtype: torch.dtype) -> Row:
    """The error, and a problem if it is over the dtype's limit. NaN is over every limit."""
    limit = BETWEEN_FORMS[dtype]
    if error <= limit:
        return {"error": error}
    return {"error": error, "problem": f"relative error {error:.1e}, over the limit of {limit:g}"}
