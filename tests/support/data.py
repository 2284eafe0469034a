"""The public data sets for tests: found through VISAVIS_DATA, or the test is skipped and says so."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def data_set(relative: str) -> Path:
    """Return the folder of data sets if it has this file or folder; else skip the test."""
    folder = Path(os.environ.get("VISAVIS_DATA", "data"))
    if not (folder / relative).exists():
        pytest.skip(f"no {relative} in {folder} (set VISAVIS_DATA to the folder of data sets)")
    return folder
