"""Clients that repeat each write under its key until it is answered: it is done once, kills or not."""

from __future__ import annotations

import os
import random
import threading
import time
from pathlib import Path

import httpx2

from tests.support.images import angle_png
from tests.support.server import Server, running

KILL_ROUNDS = int(os.environ.get("KILL_ROUNDS", "2"))
"""How often the service is killed while clients write."""
CLIENTS = 4
WRITES_BETWEEN = 12


class Clients:
    """Four clients, each of which replaces photos for as long as it may, and gives up on none."""

    def __init__(self) -> None:
        self.server: Server | None = None
        self.answers: dict[str, bytes] = {}
        self.repeats = 0
        self.stopped = False
        self.abandoned = False
        self.wrong: list[str] = []
        self._threads = [threading.Thread(target=self._write, args=(number,)) for number in range(CLIENTS)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self, *, abandon: bool = False) -> None:
        self.stopped, self.abandoned = True, abandon
        for thread in self._threads:
            thread.join()

    def _write(self, number: int) -> None:
        sent = 0
        with httpx2.Client(timeout=30) as client:
            while not self.stopped and not self.wrong:
                key = f"client {number}, write {sent}"
                attempts = 0
                while (answer := self._attempt(client, key)) is None:
                    if self.abandoned:
                        return
                    attempts += 1
                    time.sleep(0.02)
                if not answer.is_success:
                    self.wrong.append(answer.text)
                self.answers[key] = answer.content
                self.repeats += attempts > 0
                sent += 1

    def _attempt(self, client: httpx2.Client, key: str) -> httpx2.Response | None:
        assert self.server is not None
        try:
            answer = send(client, self.server, key)
        except httpx2.TransportError:
            return None
        return None if answer.status_code == 503 else answer


def send(client: httpx2.Client, server: Server, key: str) -> httpx2.Response:
    """Replace the photo of one of four identities."""
    fields = {"identity": key[7:8], "replace": "true"}
    headers = {"Idempotency-Key": key}
    return client.post(f"{server.url}/enroll", data=fields, files={"image": angle_png(0)}, headers=headers)


def revision(client: httpx2.Client) -> int:
    return int(client.get("/collections/default").json()["revision"])


def test_each_write_is_done_once_whenever_the_service_is_killed(
    url: str, tmp_path: Path, angle_models: Path
) -> None:
    clients = Clients()
    choose = random.Random(4)
    try:
        for round_ in range(KILL_ROUNDS):
            with running(tmp_path, angle_models, database_url=url) as server:
                clients.server = server
                if round_ == 0:
                    clients.start()
                before = len(clients.answers)
                while len(clients.answers) < before + WRITES_BETWEEN and not clients.wrong:
                    time.sleep(0.005)
                time.sleep(choose.uniform(0.0, 0.1))
                server.kill()
        with running(tmp_path, angle_models, database_url=url) as server:
            clients.server = server
            clients.stop()
            assert clients.wrong == []
            with server.client() as client:
                # A photo that was replaced twice would have raised the revision twice.
                assert revision(client) == len(clients.answers)
                for key, answer in clients.answers.items():
                    again = send(client, server, key)
                    assert (again.content, again.headers["idempotent-replayed"]) == (answer, "true")
                assert revision(client) == len(clients.answers)
    finally:
        clients.stop(abandon=True)
    print(f"{KILL_ROUNDS} kills: {len(clients.answers)} writes, {clients.repeats} sent more than once")
    assert clients.repeats >= KILL_ROUNDS
