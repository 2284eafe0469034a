"""What can go wrong with data sets, in domain words; ``visavis`` prints the message and ends with 1."""

from __future__ import annotations

from typing import ClassVar

from app.errors import VisavisError


class DataError(VisavisError):
    """A data set cannot be used as it is; the message says what to change."""

    code: ClassVar[str] = "data_unusable"


class MissingDataError(DataError):
    """A data set, or a file of it, is not where it is looked for."""

    code: ClassVar[str] = "data_missing"
