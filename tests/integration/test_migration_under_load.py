"""Clients ask without a pause while a collection changes its model: the short form of the benchmark."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from tests.support.migrating import MODELS, NEW, OLD, Load, change_under_load, write_models
from tests.support.server import start, wait_until_ready
from tests.support.traffic import Service


def test_change_of_model_under_load_refuses_nothing_mixes_nothing_and_loses_nothing(
    url: str, tmp_path: Path
) -> None:
    models_dir = write_models(tmp_path / "models")
    with ExitStack() as stack:
        targets = []
        for name in ("one", "other"):
            (tmp_path / name).mkdir()
            launch = partial(start, tmp_path / name, models_dir, MODELS, database_url=url)
            targets.append(Service(launch))
            stack.callback(targets[-1].server.kill)
            stack.callback(targets[-1].close)
        for target in targets:
            wait_until_ready(target.server, limit_s=180)
        settings: dict[str, Any] = {
            "database_url": url,
            "models_dir": models_dir,
            "models": (OLD, NEW),
            "provider": "cpu",
        }
        load = Load(targets, crowd=8, pending=2)
        report = change_under_load(load, settings, clients=3, seconds=0.3)
    assert report["examples"] == []
    assert (report["refused"], report["wrong"], report["lost"]) == (0, 0, 0)
    assert report["identical_after_rollback"] is report["identical_after_second_switch"] is True
    assert report["models_differ"] is True
    assert (report["pending_before_they_were_seen"], report["learnt"]) == (2, 2)
    phases = report["phases"]
    assert set(phases["before"]["models"]) == set(phases["begin"]["models"]) == {OLD}
    assert set(phases["after"]["models"]) == {NEW}
    assert report["enrolled_meanwhile"] > 0
