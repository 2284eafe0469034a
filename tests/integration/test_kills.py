"""A service that is killed in the middle of its work loses nothing that it has acknowledged."""

from __future__ import annotations

import os
import random
import threading
import time
from pathlib import Path
from typing import Any

import httpx2

from tests.support.images import angle_png
from tests.support.server import Server, running

KILL_ROUNDS = int(os.environ.get("KILL_ROUNDS", "2"))
"""How often the service is killed during a burst of enrolments."""


def enrol(client: httpx2.Client, name: str) -> httpx2.Response:
    return client.post("/enroll", data={"identity": name}, files={"image": angle_png(0)})


def test_acknowledged_enrolments_survive_kill_9(url: str, tmp_path: Path, angle_models: Path) -> None:
    acknowledged: set[str] = set()
    choose = random.Random(9)
    for round_ in range(KILL_ROUNDS):
        with running(tmp_path, angle_models, database_url=url) as server:
            present = _check_store(server, acknowledged)
            threads = [
                threading.Thread(target=_enrol_until_cut_off, args=(server, f"r{round_}-{i}", acknowledged))
                for i in range(4)
            ]
            for thread in threads:
                thread.start()
            before = len(acknowledged)
            while len(acknowledged) < before + 5:
                time.sleep(0.01)
            time.sleep(choose.uniform(0.0, 0.4))
            server.kill()
            for thread in threads:
                thread.join()
    with running(tmp_path, angle_models, database_url=url) as server:
        present = _check_store(server, acknowledged)
    print(f"{KILL_ROUNDS} kills: {len(acknowledged)} acknowledged, {len(present)} present")
    assert len(acknowledged) >= 5 * KILL_ROUNDS


def _enrol_until_cut_off(server: Server, prefix: str, acknowledged: set[str]) -> None:
    with server.client() as client:
        for i in range(100_000):
            name = f"{prefix}-{i}"
            try:
                response = enrol(client, name)
            except httpx2.TransportError:
                return
            assert response.status_code == 201, response.text
            acknowledged.add(name)


def _check_store(server: Server, acknowledged: set[str]) -> set[str]:
    """Every acknowledged enrolment is there with its template, and nothing is there by half."""
    with server.client() as client:
        listed: list[dict[str, Any]] = []
        cursor = None
        while True:
            query: dict[str, Any] = {"limit": 1000, **({"cursor": cursor} if cursor else {})}
            page = client.get("/identities", params=query).json()
            listed += page["identities"]
            cursor = page["next_cursor"]
            if cursor is None:
                break
        searched = client.post("/identify", files={"image": angle_png(0)}).json()
    present = {identity["identity"] for identity in listed}
    assert acknowledged <= present
    assert {identity["references"] for identity in listed} <= {1}
    assert sorted(identity["revision"] for identity in listed) == list(range(1, len(listed) + 1))
    assert (searched["gallery_size"], searched["revision"]) == (len(listed), len(listed))
    return present
