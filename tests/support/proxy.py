"""The proxy of docker-compose.yml, run from its own file, and a name server that knows its replicas."""

from __future__ import annotations

import shutil
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import httpx2
import pytest

from tests.support.server import ROOT, free_port


def caddy() -> str:
    """Return the program, or skip."""
    found = shutil.which("caddy", path=str(Path(sys.executable).parent)) or shutil.which("caddy")
    if found is None:
        pytest.skip("there is no caddy on this machine (the extra test brings it for Linux)")
    return found


class NameServer:
    """Answers every question for IPv4 addresses with ``addresses``, which may change."""

    def __init__(self, addresses: list[str]) -> None:
        self.addresses = addresses
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        self._thread = Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            query, sender = self._socket.recvfrom(512)
            if not query:
                return
            end = query.index(0, 12) + 5  # after the name's last label: type and class
            question = query[12:end]
            ipv4 = question[-4:-2] == b"\0\1"
            answers = [socket.inet_aton(address) for address in self.addresses] if ipv4 else []
            header = query[:2] + struct.pack(">HHHHH", 0x8180, 1, len(answers), 0, 0)
            rows = [b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4" + answer for answer in answers]
            self._socket.sendto(header + question + b"".join(rows), sender)

    def close(self) -> None:
        """Stop answering."""
        self._socket.sendto(b"", ("127.0.0.1", self.port))
        self._thread.join()
        self._socket.close()


@contextmanager
def proxying(folder: Path, names: NameServer, upstream_port: int) -> Iterator[str]:
    """Run the proxy with the ports and the name server of a test, and yield its address."""
    port = free_port()
    text = (ROOT / "deploy/Caddyfile").read_text(encoding="utf-8")
    for there, here in (
        (":8000 {", f"http://127.0.0.1:{port} {{"),
        ("port 8000\n", f"port {upstream_port}\nresolvers 127.0.0.1:{names.port}\n"),
        ("refresh 2s", "refresh 200ms"),
    ):
        assert text.count(there) == 1, there
        text = text.replace(there, here)
    (folder / "Caddyfile").write_text(text, encoding="utf-8")
    with (folder / "proxy.log").open("wb") as log:
        process = subprocess.Popen(
            [caddy(), "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"],
            env={"HOME": str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                httpx2.get(f"http://127.0.0.1:{port}/healthz", timeout=10)
                break
            except httpx2.TransportError:
                time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)
