"""How fast a file of embeddings is imported, and whether each row is there once after many kills.

    python -m benchmarks.imports [--rows 1000000] [--kills 20] [--database URL]

An npz of random unit vectors under random names is imported twice, by ``visavis identities import`` in a
process of its own: undisturbed, which gives the rows a second, and again into another collection while the
process is killed (SIGKILL) at random rows and started anew. What is stored then is compared with the file:
how many identities, names and references, and a sum over all rows that does not depend on their order.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import click
import numpy as np

from app.context import opened_database
from app.encoding.bundle import read_manifest
from app.resources import resource_dir
from app.services.portable.contract import Contract
from app.services.portable.npz import NpzFile
from app.settings import load_settings
from app.storage import bulk, collections, imports
from app.storage.database import Database, Session

MODEL = "faces"
ROWS_AT_ONCE = 50_000
POLL_S = 0.05


def write_source(path: Path, rows: int, seed: int) -> None:
    """Write random unit vectors under random names."""
    manifest = read_manifest(resource_dir("models") / MODEL)
    contract = Contract(
        visavis_export=1,
        model_id=MODEL,
        model_digest=manifest.digest,
        dimensions=manifest.dimensions,
        metric=manifest.metric,
    )
    rng = np.random.default_rng(seed)
    embeddings = rng.standard_normal((rows, manifest.dimensions), np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    names = np.array([f"person {number:08x}" for number in rng.permutation(rows)])
    np.savez(path, identity=names, embedding=embeddings, contract=np.array(contract.model_dump_json()))


def checksum(rows: Iterable[tuple[str, bytes]]) -> tuple[int, str]:
    """Return how many rows there are, and a sum of them that does not depend on their order."""
    count, total = 0, 0
    for name, embedding in rows:
        digest = hashlib.sha256(name.encode() + b"\0" + embedding).digest()
        total = (total + int.from_bytes(digest[:16])) % 2**128
        count += 1
    return count, f"{total:032x}"


def source_rows(path: Path, dimensions: int) -> Iterable[tuple[str, bytes]]:
    """Yield name and embedding of each row of the file."""
    with closing(NpzFile(path)) as source:
        for rows in source.read(0, ROWS_AT_ONCE, dimensions):
            for name, embedding in zip(rows.identities, rows.embeddings, strict=True):
                yield str(name), embedding.tobytes()


def stored(session: Session, name: str) -> dict[str, Any]:
    """Return what a collection holds."""
    collection = collections.get(session, name)
    names: set[str] = set()

    def rows() -> Iterable[tuple[str, bytes]]:
        for page in bulk.pages(session, collection, ROWS_AT_ONCE):
            for one in page:
                names.add(one.identity)
                yield one.identity, one.embedding

    references, total = checksum(rows())
    return {
        "identities": collections.count_identities(session, collection.id),
        "names": len(names),
        "references": references,
        "checksum": total,
        "revision": collection.revision,
    }


def command(source: Path, collection: str, url: str) -> list[str]:
    """Return the import as a command line."""
    return [
        *(sys.executable, "-m", "app.cli", "identities", "import", str(source)),
        *("--collection", collection, "--create", "--model", MODEL, "--json"),
        *("--rejects", str(source.with_suffix(f".{collection}.jsonl")), "--database-url", url),
    ]


def import_undisturbed(source: Path, url: str) -> dict[str, Any]:
    """Import once; the answer, with the seconds that the process took and those of the processor."""
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command(source, "undisturbed", url), check=True, capture_output=True, env=_env())
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {**json.loads(done.stdout), "seconds": time.perf_counter() - started, "cpu_seconds": cpu}


def import_killed(
    source: Path, url: str, sha256: str, database: Database, kill_at: list[int], seed: int
) -> int:
    """Import, killed soon after each of some positions; return how often it was killed."""
    rng = np.random.default_rng(seed)
    kills = 0
    for target in [*kill_at, None]:
        process = subprocess.Popen(
            command(source, "killed", url), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=_env()
        )
        while process.poll() is None:
            time.sleep(POLL_S)
            if target is not None and database.read_now(position, "killed", sha256) >= target:
                time.sleep(rng.uniform(0, 0.3))  # so that every part of a batch has its turn
                process.send_signal(signal.SIGKILL)
                kills += process.wait() == -signal.SIGKILL
                break
        if process.wait() not in {0, -signal.SIGKILL}:
            raise SystemExit(f"the import ended with {process.returncode}")
    return kills


def position(session: Session, name: str, sha256: str) -> int:
    """Return how far the import has got."""
    collection = collections.find(session, name)
    state = None if collection is None else imports.find(session, collection, sha256)
    return 0 if state is None else state.position


def _env() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}


@click.command(help=__doc__)
@click.option("--rows", default=1_000_000, show_default=True)
@click.option("--kills", default=20, show_default=True)
@click.option("--database", "url", help="SQLAlchemy URL.  [default: a new SQLite file]")
@click.option("--seed", default=0, show_default=True)
def main(rows: int, kills: int, url: str | None, seed: int) -> None:
    """Run the benchmark and print its figures as JSON; exit code 1 if a row is missing or there twice."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "people.npz"
        write_source(source, rows, seed)
        url = url or f"sqlite:///{folder}/visavis.db"
        dimensions = read_manifest(resource_dir("models") / MODEL).dimensions
        wanted, total = checksum(source_rows(source, dimensions))
        with opened_database(load_settings(database_url=url)) as database:
            undisturbed = import_undisturbed(source, url)
            kill_at = sorted(np.random.default_rng(seed).integers(0, rows, kills).tolist())
            started = time.perf_counter()
            killed = import_killed(source, url, undisturbed["source_sha256"], database, kill_at, seed)
            seconds = time.perf_counter() - started
            outcome = {name: database.read_now(stored, name) for name in ("undisturbed", "killed")}
        same = all(
            (o["identities"], o["names"], o["references"], o["checksum"]) == (rows, wanted, wanted, total)
            for o in outcome.values()
        )
        result = {
            "store": url.partition(":")[0],
            "rows": rows,
            "source_bytes": source.stat().st_size,
            "rows_per_second": round(undisturbed["rows_per_second"]),
            "seconds_with_start": round(undisturbed["seconds"], 1),
            "cpu_seconds_with_start": round(undisturbed["cpu_seconds"], 1),
            "kills": killed,
            "seconds_with_kills": round(seconds, 1),
            "each_row_once": same,
            "source_checksum": total,
            "stored": outcome,
        }
    click.echo(json.dumps(result, indent=2))
    sys.exit(0 if same else 1)


if __name__ == "__main__":
    main()
