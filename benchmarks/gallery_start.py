"""How long a worker takes until its first search of a large gallery, and what it holds in memory.

    python -m benchmarks.gallery_start [--rows 1000000] [--folder FOLDER]

A SQLite store is filled by ``visavis identities import``. Then processes of their own search it once:
without a snapshot, which reads every template from the store and leaves a snapshot; with the snapshot; and
two of them at once. Seconds are from the opened store to the first answer; memory is that of the whole
process (``pss`` shares what two processes have in common between them).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from contextlib import closing, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import numpy as np

from app.encoding.bundle import read_manifest
from app.resources import resource_dir
from app.services import galleries
from app.services.gallery_snapshots import Snapshots
from app.storage.database import Database
from benchmarks.imports import MODEL, command, write_source

COLLECTION = "people"


def memory_mib() -> dict[str, float]:
    """Return the memory of this process: all of it in use, and its share of what is shared."""
    text = Path("/proc/self/smaps_rollup").read_text(encoding="ascii")
    lines = dict(line.split(":", 1) for line in text.splitlines()[1:])
    return {name.lower(): round(int(lines[name].split()[0]) / 1024, 1) for name in ("Rss", "Pss")}


def child(url: str, folder: Path) -> None:
    """Search once, say how it went, and stay until told to go."""
    manifest = read_manifest(resource_dir("models") / MODEL)
    model: Any = SimpleNamespace(model_id=MODEL, digest=manifest.digest, manifest=manifest)
    before = memory_mib()
    with closing(Database(url, timeout_s=600, pool_size=4)) as database:
        probes = np.random.default_rng(1).standard_normal((6, manifest.dimensions))
        probes /= np.linalg.norm(probes, axis=1, keepdims=True)
        with closing(galleries.Galleries(database, 2, snapshots=Snapshots(folder, database))) as searched:
            started = time.perf_counter()
            found = searched.search_now(COLLECTION, probes[0], model, 5)
            first = time.perf_counter() - started
            more = []
            for probe in probes[1:]:
                started = time.perf_counter()
                searched.search_now(COLLECTION, probe, model, 5)
                more.append((time.perf_counter() - started) * 1e3)
            sys.stdout.write(
                json.dumps(
                    {
                        "first_search_s": round(first, 2),
                        "next_searches_ms": [round(each, 1) for each in more],
                        "gallery_size": found.gallery_size,
                        "before_mib": before["rss"],
                    }
                )
                + "\n"
            )
            sys.stdout.flush()
            sys.stdin.readline()
            sys.stdout.write(json.dumps(memory_mib()) + "\n")
            sys.stdout.flush()
            sys.stdin.readline()


class Worker:
    """A process that has searched once."""

    def __init__(self, url: str, folder: Path) -> None:
        self._running = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.gallery_start", "--child", url, "--folder", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[1],
        )

    def hear(self) -> dict[str, Any]:
        """Return the next thing it says."""
        assert self._running.stdout is not None
        heard: dict[str, Any] = json.loads(self._running.stdout.readline())
        return heard

    def go_on(self) -> None:
        """Let it do the next thing."""
        assert self._running.stdin is not None
        self._running.stdin.write("\n")
        self._running.stdin.flush()

    def end(self) -> None:
        """Let it end, which waits for a snapshot that is being written."""
        self.go_on()
        self._running.wait()


def workers(url: str, folder: Path, count: int) -> list[dict[str, Any]]:
    """Return what so many processes at once measure."""
    running = [Worker(url, folder) for _ in range(count)]
    figures = [worker.hear() for worker in running]
    for worker in running:
        worker.go_on()
    figures = [{**own, **worker.hear()} for own, worker in zip(figures, running, strict=True)]
    for worker in running:
        worker.end()
    return figures


@click.command(help=__doc__)
@click.option("--rows", default=1_000_000, show_default=True)
@click.option("--folder", type=click.Path(file_okay=False, path_type=Path), help="keep the store here")
@click.option("--child", "url", hidden=True)
def main(rows: int, folder: Path | None, url: str | None) -> None:
    """Run the benchmark and print its figures as JSON."""
    if url is not None:
        assert folder is not None
        child(url, folder)
        return
    with tempfile.TemporaryDirectory() if folder is None else nullcontext(folder) as name:
        place = Path(name)
        place.mkdir(exist_ok=True)
        address = f"sqlite:///{place / 'visavis.db'}"
        if not (place / "visavis.db").is_file():
            write_source(place / "people.npz", rows, 0)
            subprocess.run(command(place / "people.npz", COLLECTION, address), check=True)
        snapshots = place / "galleries"
        report = {
            "rows": rows,
            "from the store": workers(address, snapshots, 1)[0],
            "from a snapshot": workers(address, snapshots, 1)[0],
            "two at once, from a snapshot": workers(address, snapshots, 2),
            "store_mib": round((place / "visavis.db").stat().st_size / 2**20),
            "snapshot_mib": round(sum(path.stat().st_blocks for path in snapshots.iterdir()) / 2048),
        }
    click.echo(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
