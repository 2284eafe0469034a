"""What a run leaves, for whoever asked for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Finished:
    """The outcome of a run of any kind.

    Attributes:
        report: The page.
        bundle: Folder of the bundle that the service loads; None for what no image service serves.
        headline: The figures in one line.
    """

    report: Path
    bundle: Path | None
    headline: str
