"""The proxy of docker-compose.yml before real services: it spreads requests, and loses none when one goes."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.support.images import angle_png
from tests.support.proxy import NameServer, proxying
from tests.support.server import free_port, running

ADDRESSES = ["127.0.0.2", "127.0.0.3", "127.0.0.4"]
LARGE = 54 * 2**20


class _Replica(BaseHTTPRequestHandler):
    """Answers with its own address and what has come."""

    def do_GET(self) -> None:
        self.do_POST()

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        if self.path == "/dies":
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        body = self.rfile.read(length)
        here = self.connection.getsockname()[0]
        self.send_response(200)
        self.send_header("X-Seen", "; ".join(f"{k}: {v}" for k, v in self.headers.items()))
        answer = f"{here} {len(body)}".encode()
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as in the base class
        pass


@contextmanager
def replica(address: str, port: int) -> Iterator[None]:
    server = ThreadingHTTPServer((address, port), _Replica)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def names() -> Iterator[NameServer]:
    server = NameServer(list(ADDRESSES))
    yield server
    server.close()


def test_requests_are_spread_over_the_replicas_and_none_fails_when_they_come_and_go(
    tmp_path: Path, names: NameServer
) -> None:
    port = free_port()
    with ExitStack() as replicas, proxying(tmp_path, names, port) as url, httpx2.Client(timeout=20) as client:
        replicas.enter_context(replica(ADDRESSES[0], port))
        one_only = ExitStack()
        one_only.enter_context(replica(ADDRESSES[1], port))  # the third is not up yet, but has its address
        seen = Counter(client.post(f"{url}/identify", content=b"x").text.split()[0] for _ in range(60))
        assert set(seen) == set(ADDRESSES[:2])
        assert min(seen.values()) > 5
        one_only.close()  # goes, and its address stays known a while
        answers = [client.post(f"{url}/enroll", content=b"x") for _ in range(20)]
        assert {answer.text for answer in answers} == {f"{ADDRESSES[0]} 1"}


def test_bodies_as_large_as_the_service_takes_pass_with_their_headers(
    tmp_path: Path, names: NameServer
) -> None:
    port = free_port()
    with ExitStack() as stack:
        for address in ADDRESSES:
            stack.enter_context(replica(address, port))
        url = stack.enter_context(proxying(tmp_path, names, port))
        headers = {
            "Authorization": "Bearer vv_x",
            "Idempotency-Key": "k",
            "If-Match": '"3"',
            "X-Request-ID": "r",
            "If-Revision": "7",
        }
        answer = httpx2.post(f"{url}/enroll", content=bytes(LARGE), headers=headers, timeout=60)
        assert answer.text.split()[1] == str(LARGE)
        seen = answer.headers["X-Seen"].lower()
        for name, value in headers.items():
            assert f"{name}: {value}".lower() in seen


def test_replica_that_dies_over_a_request_leaves_a_problem_and_no_second_try(
    tmp_path: Path, names: NameServer
) -> None:
    port = free_port()
    with ExitStack() as stack:
        stack.enter_context(replica(ADDRESSES[0], port))
        url = stack.enter_context(proxying(tmp_path, names, port))
        answer = httpx2.post(f"{url}/dies", content=b"x" * 100_000, timeout=20)
        assert answer.status_code == 503
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.headers["Retry-After"] == "1"
        problem = answer.json()
        assert problem["code"] == "outcome_unknown"
        assert problem["type"] == "urn:visavis:problem:outcome_unknown"
        assert problem["status"] == 503
        assert problem["request_id"] == answer.headers["X-Request-ID"]


def test_service_says_through_the_proxy_what_is_too_large_and_answers_the_rest(
    tmp_path: Path, names: NameServer, angle_models: Path
) -> None:
    (tmp_path / "store").mkdir()
    names.addresses = ["127.0.0.1"]
    settings: dict[str, Any] = {"host": "0.0.0.0", "insecure": "true", "max_image_bytes": 1_000_000}
    with (
        running(tmp_path / "store", angle_models, **settings) as server,
        proxying(tmp_path, names, server.port) as url,
    ):
        enrolled = httpx2.post(
            f"{url}/enroll", data={"identity": "ada"}, files={"image": angle_png(30)}, timeout=20
        )
        assert enrolled.status_code == 201
        found = httpx2.post(f"{url}/identify", files={"image": angle_png(30)}, timeout=20).json()
        assert found["candidates"][0]["identity"] == "ada"
        for size in [4_000_000] * 5 + [60_000_000]:
            refused = httpx2.post(f"{url}/enroll", content=bytes(size), timeout=20)
            assert (refused.status_code, refused.json()["code"]) == (413, "image_too_large")
