"""The benchmarks of SeBS: a folder each, with code, inputs and output checks. Nothing here knows a provider."""

from __future__ import annotations

from pathlib import Path

from sebs_core import hookimpl

__all__ = ["sebs_benchmarks"]
__version__ = "0.1.0"


@hookimpl
def sebs_benchmarks() -> list[Path]:
    """This folder."""
    return [Path(__file__).parent]
