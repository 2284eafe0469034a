"""Fixtures that many tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from tests.support.bundles import write_angle_bundle
from tests.support.crowd import crowd_evidence
from tests.support.service import serving, settings_for

MODELS = Path(__file__).parents[1] / "models"


@pytest.fixture(scope="session")
def angle_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the small bundles ``angles`` and ``other`` (the same graph, another metric)."""
    folder = tmp_path_factory.mktemp("models")
    write_angle_bundle(folder)
    write_angle_bundle(folder, "other", metric="cosine")
    return folder


@pytest.fixture(scope="session")
def crowd_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the small bundle ``crowd``, measured on people at random angles."""
    folder = tmp_path_factory.mktemp("crowd")
    write_angle_bundle(folder, "crowd", evidence=crowd_evidence())
    return folder


@pytest.fixture
def client(tmp_path: Path, angle_models: Path) -> Iterator[TestClient]:
    """A running service with the small models, on an empty SQLite store."""
    with serving(settings_for(tmp_path, angle_models, ("angles", "other"))) as opened:
        yield opened


@pytest.fixture(scope="module")
def faces_client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A running service with the ``faces`` bundle, on an empty SQLite store; one a module."""
    with serving(settings_for(tmp_path_factory.mktemp("faces"), MODELS, ("faces",))) as opened:
        yield opened


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of public data sets, or skip."""
    folder = Path(os.environ.get("VISAVIS_DATA", "data"))
    if not folder.is_dir():
        pytest.skip(f"no data sets at {folder} (set VISAVIS_DATA; see README)")
    return folder
