"""What can go wrong with data sets, in domain words; ``visavis`` prints the message and ends with 1."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Self

from app.errors import VisavisError


class DataError(VisavisError):
    """A data set cannot be used as it is; the message says what to change."""

    code: ClassVar[str] = "data_unusable"


class MissingDataError(DataError):
    """A data set, or a file of it, is not where it is looked for."""

    code: ClassVar[str] = "data_missing"

    @classmethod
    def of(cls, path: Path, name: str) -> Self:
        """Return the error for a file of a public set, with the command that fetches it."""
        return cls(f"{path} is not there; get it with: visavis data fetch {name}")
