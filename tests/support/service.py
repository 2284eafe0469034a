"""Open the service for a test, in process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fastapi.testclient import TestClient

from app.main import create_app
from app.settings import Settings, load_settings


def settings_for(folder: Path, models_dir: Path, models: tuple[str, ...], **changes: object) -> Settings:
    """Return settings with a SQLite store in a folder."""
    values: dict[str, object] = {
        "database_url": f"sqlite:///{folder / 'visavis.db'}",
        "models_dir": models_dir,
        "models": models,
        "provider": "cpu",
        **changes,
    }
    return load_settings(**values)


@contextmanager
def serving(settings: Settings) -> Iterator[TestClient]:
    """Run the service's start-up, yield a client, and shut it down."""
    app = create_app(settings)
    # FastAPI builds routes when they are first looked at. A service has one thread for that; a test that runs
    # two services has two, and what pydantic makes meanwhile is not safe then.
    for route in app.routes:
        route.matches({"type": "http", "method": "GET", "path": "/", "root_path": "", "headers": []})
    with TestClient(app, "http://127.0.0.1:8000", raise_server_exceptions=False) as client:
        yield client
