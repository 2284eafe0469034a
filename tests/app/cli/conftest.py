"""Every command here runs in an empty folder, with the small models."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.images import angle_png


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, angle_models: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory; the store is ``visavis.db`` in it, the default model ``angles``."""
    for name in [name for name in os.environ if name.startswith("VISAVIS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("VISAVIS_MODELS_DIR", str(angle_models))
    monkeypatch.setenv("VISAVIS_MODELS", "angles,other")
    monkeypatch.setenv("VISAVIS_PROVIDER", "cpu")
    monkeypatch.chdir(tmp_path)
    for degrees in (0, 10, 45, 90):
        Path(f"at{degrees}.png").write_bytes(angle_png(degrees))
    return tmp_path
