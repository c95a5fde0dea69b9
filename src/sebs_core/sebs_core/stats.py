"""Quantiles as docs/measurement.md defines them.

A failed invocation counts as +∞, so a quantile that falls among failures is unknown (None), and so are mean and maximum of
values with a failure among them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pydantic import BaseModel

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Quantiles", "quantile"]


class Quantiles(BaseModel, frozen=True):
    """Figures of one quantity in its own unit; None where a failure makes the figure unknown."""

    p50: float | None
    p95: float | None
    p99: float | None
    mean: float | None
    min: float | None
    max: float | None

    @staticmethod
    def of(values: Iterable[float]) -> Quantiles | None:
        """Figures of these values (``math.inf`` for a failure), or None if there are none."""
        ordered = sorted(values)
        if not ordered:
            return None
        return Quantiles(
            p50=quantile(ordered, 0.5),
            p95=quantile(ordered, 0.95),
            p99=quantile(ordered, 0.99),
            mean=_known(math.fsum(ordered) / len(ordered)),
            min=_known(ordered[0]),
            max=_known(ordered[-1]),
        )


def quantile(ordered: Sequence[float], q: float) -> float | None:
    """The q-quantile of sorted values, linear between order statistics (Hyndman and Fan 1996, type 7); None if infinite."""
    place = q * (len(ordered) - 1)
    below = math.floor(place)
    share = place - below
    low = ordered[below]
    if share == 0:
        return _known(low)
    high = ordered[below + 1]
    return None if math.isinf(high) else low + share * (high - low)


def _known(value: float) -> float | None:
    return None if math.isinf(value) else value
