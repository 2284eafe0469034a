"""A running service over real HTTP: its life, its end, and bad company."""

from __future__ import annotations

import json
import socket
import stat
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import numpy as np
import pytest
from PIL import Image

from tests.support.bad_requests import _coded
from tests.support.images import angle_png, astronaut, encoded, no_face
from tests.support.server import ROOT, Server, running, start

POST = b"POST /enroll HTTP/1.1\r\nHost: x\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, angle_models: Path) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("service")
    with running(folder, angle_models, upload_timeout_s=1) as started:
        yield started


@pytest.fixture
def client(server: Server) -> Iterator[httpx2.Client]:
    with server.client() as opened:
        yield opened


def enrol(client: httpx2.Client, name: str, image: bytes | None = None, **fields: str) -> httpx2.Response:
    files = {"image": image or angle_png(0)}
    return client.post("/enroll", data={"identity": name, **fields}, files=files)


def raw_enrol(name: str) -> bytes:
    """Return the bytes of a whole HTTP request that enrols a name."""
    request = httpx2.Request(
        "POST",
        "http://127.0.0.1/enroll",
        data={"identity": name},
        files={"image": angle_png(0)},
        headers={"Connection": "close"},
    )
    body = request.read()
    head = "".join(f"{key}: {value}\r\n" for key, value in request.headers.items())
    return f"POST /enroll HTTP/1.1\r\n{head}\r\n".encode() + body


def exchange(server: Server, data: bytes) -> bytes:
    """Send bytes and return all that comes back until the service closes the connection."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(data)
        return _rest(connection)


def _rest(connection: socket.socket) -> bytes:
    received = b""
    while piece := connection.recv(65_536):
        received += piece
    return received


@pytest.mark.model
def test_person_is_enrolled_verified_identified_and_deleted(tmp_path: Path) -> None:
    portrait = astronaut()
    enrolled = encoded(portrait, "JPEG", quality=95)
    probe = encoded(portrait.resize((400, 400)).rotate(8), "JPEG", quality=80)
    with running(tmp_path, ROOT / "models", "faces") as server, server.client() as client:
        made = enrol(client, "eileen", enrolled, metadata='{"flights": 4}').json()
        assert (made["revision"], made["model"]) == (1, "faces")
        verified = client.post("/verify", data={"identity": "eileen"}, files={"image": probe}).json()
        assert verified["match"] is True
        assert verified["distance"] <= verified["threshold"]
        found = client.post("/identify", files={"image": probe}).json()
        assert (found["match"], found["candidates"][0]["identity"]) == (True, "eileen")
        assert found["candidates"][0]["metadata"] == {"flights": 4}
        stranger = client.post("/identify", files={"image": encoded(no_face(), "JPEG")})
        assert stranger.json()["code"] == "no_face"
        assert client.delete("/identities/eileen").status_code == 204
        assert client.post("/identify", files={"image": probe}).json()["candidates"] == []
        assert server.stop() == 0


def test_requests_in_flight_are_answered_after_sigterm_and_kept(tmp_path: Path, angle_models: Path) -> None:
    names = [f"ada-{i}" for i in range(6)]
    with running(tmp_path, angle_models) as server:
        connections = []
        for name in names:
            request = raw_enrol(name)
            connection = socket.create_connection(("127.0.0.1", server.port), timeout=20)
            connection.sendall(request[:-50])
            connections.append((connection, request[-50:]))
        time.sleep(0.3)
        server.process.terminate()
        time.sleep(0.3)
        answers = []
        for connection, rest in connections:
            with connection:
                connection.sendall(rest)
                answers.append(_rest(connection))
        assert [answer[:12] for answer in answers] == [b"HTTP/1.1 201"] * len(names)
        assert server.process.wait(20) == 0
    with running(tmp_path, angle_models) as server, server.client() as client:
        listed = client.get("/identities").json()["identities"]
        assert sorted(identity["identity"] for identity in listed) == names


def test_full_queue_gives_busy_with_retry_after_and_the_rest_succeed(
    tmp_path: Path, angle_models: Path
) -> None:
    noise = np.random.default_rng(1).integers(0, 255, (1500, 1500, 3), dtype=np.uint8)
    slow = encoded(Image.fromarray(noise), "PNG", compress_level=1)
    with (
        running(tmp_path, angle_models, encoder_threads=1, encoder_queue_limit=2) as server,
        server.client() as client,
    ):
        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda i: enrol(client, f"n{i}", slow), range(32)))
        refused = [answer for answer in answers if answer.status_code == 503]
        made = [answer for answer in answers if answer.status_code == 201]
        assert refused
        assert made
        assert len(refused) + len(made) == 32
        assert all(answer.json()["code"] == "busy" for answer in refused)
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
        assert len(client.get("/identities").json()["identities"]) == len(made)
        assert enrol(client, "after").status_code == 201


def test_two_workers_agree_and_add_up_their_metrics(tmp_path: Path, angle_models: Path) -> None:
    with running(tmp_path, angle_models, workers=2) as server:
        for i in range(12):
            image = {"image": angle_png(7 * i)}
            # A new connection each time, so that either worker may take it.
            with server.client() as client:
                assert enrol(client, f"ada-{i}", image["image"]).status_code == 201
            with server.client() as client:
                found = client.post("/identify", files=image).json()
            assert found["candidates"][0]["identity"] == f"ada-{i}"
            with server.client() as client:
                assert client.delete(f"/identities/ada-{i}").status_code == 204
            with server.client() as client:
                assert client.post("/identify", files=image).json()["candidates"] == []
        with server.client() as client:
            lines = client.get("/metrics").text.splitlines()
        (enrolments,) = [line for line in lines if "visavis_requests_total" in line and '"/enroll"' in line]
        assert float(enrolments.split()[-1]) == 12
        assert server.stop() == 0


def test_slow_upload_is_cut_off_with_408(server: Server, client: httpx2.Client) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        started = time.monotonic()
        connection.sendall(raw_enrol("slow")[:-50])
        answer = _rest(connection)
    assert answer.startswith(b"HTTP/1.1 408")
    assert b'"code": "upload_timeout"' in answer
    assert 0.9 <= time.monotonic() - started < 10
    assert client.get("/identities/slow").status_code == 404


def test_upload_that_drips_byte_by_byte_is_cut_off_as_well(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        request = raw_enrol("drip")
        connection.sendall(request[:-100])
        answer = b""
        for byte in request[-100:]:
            connection.settimeout(0.05)
            try:
                answer = connection.recv(65_536)
                break
            except TimeoutError:
                connection.sendall(bytes([byte]))
    assert answer.startswith(b"HTTP/1.1 408")


def test_client_that_hangs_up_leaves_nothing_and_no_error(server: Server, client: httpx2.Client) -> None:
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
            connection.sendall(raw_enrol("gone")[:-50])
            time.sleep(0.02)
    deadline = time.monotonic() + 10
    while sum(line.get("status") == 499 for line in server.log()) < 5 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert sum(line.get("status") == 499 for line in server.log()) == 5
    assert client.get("/identities/gone").status_code == 404
    assert [line for line in server.log() if line["level"] == "ERROR"] == []
    gauges = [line for line in client.get("/metrics").text.splitlines() if "visavis_upload_bytes" in line]
    assert gauges[-1].split()[-1] == "0.0"


@pytest.mark.parametrize(
    "request_",
    [
        b"garbage\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /identities/%zz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET /identities/%ff%fe HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX: " + b"a" * 1_000_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        POST + b"Content-Length: abc\r\n\r\n",
        POST + b"Content-Length: -1\r\n\r\n",
        POST + b"Connection: close\r\nContent-Length: " + b"9" * 40 + b"\r\n\r\n",
        POST + b"Connection: close\r\nContent-Length: 999999999999\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
    ids=lambda request: request[:60].decode("latin-1").encode("unicode_escape").decode()[:60],
)  # fmt: skip
def test_broken_http_is_no_server_error_and_harms_nobody_else(
    server: Server, client: httpx2.Client, request_: bytes
) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(request_)
        connection.shutdown(socket.SHUT_WR)
        answer = _rest(connection)
    assert not answer.startswith(b"HTTP/1.1 5"), answer[:200]
    assert client.get("/healthz").status_code == 200


@pytest.mark.parametrize("name", ["a%2Fb", "100%", "a+b", "a b", "é", "/", "a\\b", "%", "\U0001f600?#"])
def test_name_that_a_path_must_encode_goes_round_over_the_wire(client: httpx2.Client, name: str) -> None:
    path = f"/identities/{_coded(name)}"
    assert enrol(client, name).status_code == 201
    assert client.get(path).json()["identity"] == name
    assert client.delete(path).status_code == 204


def test_log_is_json_lines_with_request_ids_and_holds_nothing_of_what_was_sent(
    tmp_path: Path, angle_models: Path
) -> None:
    name, value = "Zsuzsanna Unmistakable", "metadata-unmistakable"
    key = "vv_0123456789ab_" + "K" * 43
    with running(tmp_path, angle_models, log_level="debug") as server, server.client() as client:
        made = enrol(client, name, metadata=json.dumps({"note": value})).json()
        path = "/identities/" + name.replace(" ", "%20")
        template = client.post("/embed", files={"image": angle_png(0)}).json()["embedding"]
        requests = {
            client.get(path).headers["x-request-id"],
            enrol(client, name).headers["x-request-id"],
            client.post("/identify", files={"image": angle_png(0)}).headers["x-request-id"],
            client.get("/models", headers={"Authorization": f"Bearer {key}"}).headers["x-request-id"],
            client.delete(path).headers["x-request-id"],
        }
        assert server.stop() == 0
    lines = server.log()
    assert requests <= {line["request_id"] for line in lines}
    assert all({"time", "level", "logger", "message", "request_id"} <= line.keys() for line in lines)
    text = server.log_file.read_text()
    secrets = [name, "Zsuzsanna", "Unmistakable", value, key, "K" * 20, made["reference_id"], str(template)]
    assert [secret for secret in secrets if secret in text] == []


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"database_url": "sqlite:////proc/none/visavis.db"}, "unable to open database file"),
        ({"models": "nothing"}, "nothing"),
        ({"database_url": "postgresql+psycopg://127.0.0.1:1/d"}, "refused"),
        ({"prot": "1"}, "did you mean VISAVIS_PORT"),
    ],
)
def test_start_that_cannot_work_ends_with_one_line_and_no_traceback(
    tmp_path: Path, angle_models: Path, settings: dict[str, str], why: str
) -> None:
    server = start(tmp_path, angle_models, **{"models": "angles", **settings})
    assert server.process.wait(30) == 1
    text = server.log_file.read_text()
    assert why in text
    assert "Traceback" not in text


@pytest.mark.parametrize("workers", [1, 2])
def test_taken_port_ends_the_start_with_its_reason(tmp_path: Path, angle_models: Path, workers: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = start(tmp_path, angle_models, "angles", port=port, workers=workers)
        assert server.process.wait(30) == 1
    text = server.log_file.read_text()
    assert f"visavis: 127.0.0.1:{port} cannot be listened on (Address already in use); " in text
    assert "Traceback" not in text


def test_log_at_start_names_the_store(server: Server) -> None:
    assert f"store sqlite:///{server.log_file.with_name('visavis.db')}" in [
        line["message"] for line in server.log()
    ]


def test_files_of_a_running_store_are_readable_to_their_owner_only(server: Server) -> None:
    files = server.log_file.parent.glob("visavis.db*")
    assert {file.name: stat.S_IMODE(file.stat().st_mode) for file in files} == {
        "visavis.db": 0o600,
        "visavis.db-shm": 0o600,
        "visavis.db-wal": 0o600,
    }
