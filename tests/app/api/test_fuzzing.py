"""Schemathesis, with every phase and every check, against the service's own OpenAPI description.

``schemathesis.toml`` in the root is read here too, so this run expects what an outside person's does.
"""

from __future__ import annotations

import tomllib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from schemathesis.checks import CHECKS
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events, from_schema

import tests.support.fuzzing  # noqa: F401 - registers what an image is
from app.context import open_context
from app.main import create_app
from app.services.access import create_key
from tests.support.service import settings_for

ROOT = Path(__file__).parents[3]
LIMITS: dict[str, Any] = {"max_image_bytes": 2**20, "revision_timeout_s": 0.05}
"""Settings that let a run be short."""


@dataclass
class Outcome:
    """What a run of schemathesis found."""

    cases: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


def fuzz(app: Any, *, examples: int, headers: dict[str, str] | None = None) -> Outcome:
    """Run all phases against an app."""
    settings = tomllib.loads((ROOT / "schemathesis.toml").read_text(encoding="utf-8"))
    settings |= {
        "seed": 1,
        "base-url": "http://127.0.0.1:8000",
        "headers": headers or {},
        "continue-on-failure": True,
        "cache": {"enabled": False},
        "generation": {"max-examples": examples, "deterministic": True, "database": "none"},
    }
    schema = schemathesis.openapi.from_asgi(
        "/openapi.json", app, config=SchemathesisConfig.from_dict(settings)
    )
    outcome = Outcome()
    for event in from_schema(schema).execute():
        if isinstance(event, events.ScenarioFinished):
            outcome.cases += len(event.recorder.interactions)
            for interaction in event.recorder.interactions.values():
                if interaction.response is not None:
                    outcome.statuses[interaction.response.status_code] += 1
            for checks in event.recorder.checks.values():
                for check in checks:
                    if check.failure_info is not None:
                        info = check.failure_info
                        outcome.problems.append(
                            f"{event.recorder.label}: {info.failure!r} {info.code_sample}"
                        )
        elif isinstance(event, events.NonFatalError | events.FatalError):
            outcome.problems.append(repr(vars(event) if hasattr(event, "__dict__") else event))
    return outcome


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("secured", [False, True], ids=["open", "with keys"])
def test_small_model_keeps_to_its_description(tmp_path: Path, angle_models: Path, secured: bool) -> None:
    host = "0.0.0.0" if secured else "127.0.0.1"
    settings = settings_for(tmp_path, angle_models, ("angles", "other"), host=host, **LIMITS)
    with open_context(settings) as context:
        key = create_key(context.database, "fuzzer", "full") if secured else ""
        headers = {"Authorization": f"Bearer {key}"} if secured else None
        outcome = fuzz(_app(context), examples=25, headers=headers)
    assert outcome.problems == []
    assert outcome.cases > 500
    assert {200, 201, 204, 404, 409, 415, 422} <= set(outcome.statuses)


@pytest.mark.model
@pytest.mark.filterwarnings("default")
def test_faces_model_keeps_to_its_description(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, ROOT / "models", ("faces",), **LIMITS)
    with open_context(settings) as context:
        outcome = fuzz(_app(context), examples=15)
    assert outcome.problems == []
    assert outcome.cases > 500
    assert {200, 201, 204, 404, 409, 415, 422} <= set(outcome.statuses)


def test_every_check_of_schemathesis_is_on() -> None:
    config = SchemathesisConfig.from_path(ROOT / "schemathesis.toml").projects.default
    disabled = [n for n in CHECKS.get_all_names() if not config.checks.get_by_name(name=n).enabled]
    assert disabled == []


def _app(context: Any) -> Any:
    app = create_app(context.settings, context)
    app.state.context = context
    return app
