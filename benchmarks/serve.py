"""How much of the pipeline's speed is left once HTTP, validation and threads are around it.

    python -m benchmarks.serve [--image-a FILE --image-b FILE] [--rounds 7] [--seconds 3]

In every round, one after the other so that a noisy machine troubles all alike: the bare loop (decode,
detect, align and encode the two images, on one thread and on one per core), then ``POST /verify`` of the
same two images against a real server at concurrency 1 and 4. Printed are medians of the ratios.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click

from app.encoding.cores import available_cores
from app.encoding.image_encoder import ImageEncoder, ImageInput, Timings
from app.encoding.model import open_model
from app.matching.distances import distance
from app.resources import resource_dir

BOUNDARY = "visavis-benchmark"


def bare_verification(encoder: ImageEncoder, images: tuple[bytes, bytes]) -> float:
    """Compare two images with nothing around the pipeline."""
    timings = Timings()
    prepared = [encoder.prepare(ImageInput(data), "largest", timings) for data in images]
    first, second = encoder.encode(prepared, timings)
    return distance(first, second, encoder.encoding.metric)


def rate(work: Callable[[], object], threads: int, seconds: float) -> float:
    """Return calls a second of ``work`` on a number of threads."""
    deadline = time.perf_counter() + seconds

    def loop(_: int) -> int:
        count = 0
        while time.perf_counter() < deadline:
            work()
            count += 1
        return count

    started = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        done = sum(pool.map(loop, range(threads)))
    return done / (time.perf_counter() - started)


def form(images: tuple[bytes, bytes]) -> bytes:
    """Return the multipart body of a verification."""
    parts = []
    for name, data in zip(("image_a", "image_b"), images, strict=True):
        parts.append(
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"; filename="{name}.jpg"\r\n'
            "Content-Type: image/jpeg\r\n\r\n".encode()
            + data
            + b"\r\n"
        )
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


class Caller:
    """Calls ``POST /verify`` over one kept connection a thread."""

    def __init__(self, port: int, body: bytes) -> None:
        self._port = port
        self._body = body
        self._local = threading.local()

    def __call__(self) -> None:
        """Make one call; anything but 200 ends the benchmark."""
        connection = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = http.client.HTTPConnection("127.0.0.1", self._port)
        connection.request(
            "POST",
            "/verify",
            self._body,
            {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"},
        )
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise SystemExit(f"{answer.status}: {text.decode()}")


def start_server(
    folder: Path, environment: Mapping[str, str] | None = None
) -> tuple[subprocess.Popen[bytes], int, float]:
    """Start the service on a free port; returns it, the port, and seconds until it was ready."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    started = time.perf_counter()
    server = subprocess.Popen(
        [sys.executable, "-m", "app.cli", "serve", "--port", str(port), "--log-level", "warning"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), **(environment or {})},
    )
    while True:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                return server, port, time.perf_counter() - started
        except OSError:
            if server.poll() is not None:
                raise SystemExit("the server did not start") from None
        time.sleep(0.02)


def cpu_seconds(pid: int) -> float:
    """Return the processor seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@click.command(help=__doc__)
@click.option("--image-a", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--image-b", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--rounds", default=7, show_default=True)
@click.option("--seconds", default=3.0, show_default=True, help="of each measurement in a round")
def main(image_a: Path, image_b: Path, rounds: int, seconds: float) -> None:
    """Run the benchmark and print its figures as JSON."""
    images = (image_a.read_bytes(), image_b.read_bytes())
    encoder = open_model(resource_dir("models") / "faces", provider="cpu").images
    cores = available_cores()
    bare = lambda: bare_verification(encoder, images)  # noqa: E731
    with tempfile.TemporaryDirectory() as folder:
        server, port, ready_s = start_server(Path(folder))
        try:
            call = Caller(port, form(images))
            rate(bare, 1, 1.0), rate(call, 1, 1.0)
            rows = []
            for _ in range(rounds):
                row = {"bare_1": rate(bare, 1, seconds), f"bare_{cores}": rate(bare, cores, seconds)}
                for concurrency in (1, 4):
                    before = cpu_seconds(server.pid)
                    row[f"verify_{concurrency}"] = rate(call, concurrency, seconds)
                    spent = cpu_seconds(server.pid) - before
                    row[f"cpu_ms_{concurrency}"] = 1e3 * spent / (row[f"verify_{concurrency}"] * seconds)
                rows.append(row)
        finally:
            server.terminate()
            server.wait()

    def middle(top: str, bottom: str) -> float:
        return round(statistics.median(row[top] / row[bottom] for row in rows), 3)

    click.echo(
        json.dumps(
            {
                "per_second": {name: round(statistics.median(r[name] for r in rows), 1) for name in rows[0]},
                "ratios": {
                    "verify_1 / bare_1": middle("verify_1", "bare_1"),
                    "verify_4 / bare_1": middle("verify_4", "bare_1"),
                    f"verify_4 / bare_{cores}": middle("verify_4", f"bare_{cores}"),
                },
                "cores": cores,
                "rounds": rounds,
                "ready_s": round(ready_s, 2),
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
