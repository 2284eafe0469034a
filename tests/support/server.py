"""A real ``visavis serve`` in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

ROOT = Path(__file__).parents[2]


@dataclass
class Server:
    """A running service."""

    process: subprocess.Popen[bytes]
    port: int
    log_file: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self) -> httpx2.Client:
        """Return a client; the caller closes it."""
        return httpx2.Client(base_url=self.url, timeout=30)

    def log(self) -> list[dict[str, Any]]:
        """Return the log so far; every line must be JSON."""
        return [json.loads(line) for line in self.log_file.read_text(encoding="utf-8").splitlines()]

    def stop(self, limit_s: float = 20) -> int:
        """Ask it to stop in order, and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(limit_s)

    def kill(self) -> None:
        """Kill it and its workers, as a power cut would."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(20)


def free_port() -> int:
    """Return a TCP port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(folder: Path, models_dir: Path, models: str, **settings: object) -> Server:
    """Start a service with its store in a folder, and return at once."""
    port = free_port()
    values = {
        "database_url": f"sqlite:///{folder / 'visavis.db'}",
        "models_dir": models_dir,
        "models": models,
        "provider": "cpu",
        "port": port,
        **settings,
    }
    environment = {name: value for name, value in os.environ.items() if not name.startswith("VISAVIS_")}
    environment |= {f"VISAVIS_{name.upper()}": str(value) for name, value in values.items()}
    environment["PYTHONPATH"] = str(ROOT)
    log_file = folder / "serve.log"
    with log_file.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", "from app.cli import main; main()", "serve"],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    return Server(process, port, log_file)


def wait_until_ready(server: Server, limit_s: float = 60) -> None:
    """Return once ``/readyz`` says so."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline and server.process.poll() is None:
        try:
            if httpx2.get(f"{server.url}/readyz", timeout=5).status_code == 200:
                return
        except httpx2.TransportError:
            time.sleep(0.05)
    raise AssertionError(f"the service did not become ready:\n{server.log_file.read_text()}")


@contextmanager
def running(folder: Path, models_dir: Path, models: str = "angles", **settings: object) -> Iterator[Server]:
    """Start a service, wait until it is ready, and kill it at the end if it still runs."""
    server = start(folder, models_dir, models, **settings)
    try:
        wait_until_ready(server)
        yield server
    finally:
        if server.process.poll() is None:
            server.kill()
