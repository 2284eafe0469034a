"""How long the search part of an identification takes, and what it holds in memory, as the gallery grows.

    python -m benchmarks.search [--sizes 1000,10000,100000,1000000] [--dimensions 128] [--rounds 15]
                                [--embeddings FILE.npz] [--checked 1000] [--pgvector] [--plot FILE.png]

Rows are unit vectors of random directions, or real embeddings (``visavis embed``) of which others are made
by mixing pairs, which keeps their clusters; probes lie at cosine 0.65 to their mate. For each size, one
after the other in every round so that a noisy machine troubles all alike: ``Gallery`` with one probe and
with 16, FAISS's ``IndexFlatIP`` on as many threads, a numpy product, and, if asked, an exact scan by
pgvector. Then the ten nearest of ``--checked`` probes are compared with brute force in float64. Printed as
JSON; times in milliseconds.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from app.matching.distances import distances
from app.matching.gallery import Gallery, Neighbour
from app.matching.quantised import engine

Rows = NDArray[np.float32]
COSINE = 0.65
TOGETHER = 16


def unit(rows: NDArray[Any]) -> Rows:
    """Return rows of norm 1."""
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def drawn(rng: np.random.Generator, count: int, dimensions: int, real: Rows | None) -> Rows:
    """Return float32[count, D] unit vectors."""
    if real is None:
        return unit(rng.standard_normal((count, dimensions), np.float32))
    rows = real[rng.permutation(len(real))[:count]]
    while len(rows) < count:
        some = min(count - len(rows), 100_000)
        first, second = (real[rng.integers(len(real), size=some)] for _ in range(2))
        rows = np.concatenate([rows, unit(first + rng.uniform(0.2, 1.0, (some, 1)) * second)])
    return np.asarray(rows, np.float32)


def mates(rng: np.random.Generator, rows: Rows) -> Rows:
    """Return probes at a cosine of ``COSINE`` to their rows."""
    aside = rng.standard_normal(rows.shape)
    aside -= (aside * rows).sum(axis=1, keepdims=True) * rows
    return unit(COSINE * rows + np.sqrt(1 - COSINE**2) * unit(aside))


def milliseconds(work: Callable[[], object]) -> float:
    """Return how long a call takes."""
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) * 1e3


def resident_mib() -> float:
    """Return the memory of this process that is in use."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def brute_force(rows: Rows, probes: Rows, k: int) -> list[list[Neighbour]]:
    """Return the nearest by a full scan in float64, whose rounding is 1e-8 of the room that is left to it."""
    squares = np.empty((len(probes), len(rows)))
    wide = probes.astype(np.float64)
    for start in range(0, len(rows), 65_536):
        block = rows[start : start + 65_536].astype(np.float64)
        squares[:, start : start + 65_536] = np.square(block).sum(axis=1) - 2.0 * (wide @ block.T)
    found = []
    for probe, own in zip(probes, squares, strict=True):
        near = np.flatnonzero(own <= np.partition(own, k - 1)[k - 1] + 1e-7)
        exact = distances(probe, rows[near], "euclidean")
        order = np.lexsort((near, exact))[:k]
        found.append([Neighbour(int(near[place]), float(exact[place])) for place in order])
    return found


def measured(
    size: int, dimensions: int, rounds: int, checked: int, real: Rows | None, pgvector: bool, threads: int
) -> dict[str, Any]:
    """Return the figures of one size."""
    rng = np.random.default_rng(size)
    rows = drawn(rng, size, dimensions, real)
    before = resident_mib()
    with ThreadPoolExecutor(threads) as pool:
        gallery = Gallery(dimensions, "euclidean", pool=pool)
        building = milliseconds(lambda: gallery.load([(np.arange(size), rows)], expected=size))
        held = resident_mib() - before
        probes = mates(rng, rows[rng.integers(size, size=max(checked, 64 + rounds))])
        faiss = engine()
        flat = faiss.IndexFlatIP(dimensions)
        flat.add(rows)

        def by_faiss(some: Rows) -> object:
            faiss.omp_set_num_threads(threads)
            found = flat.search(some, 10)
            faiss.omp_set_num_threads(1)
            return found

        ways: dict[str, Callable[[int], object]] = {
            "gallery": lambda n: gallery.nearest(probes[n], 10),
            "faiss flat": lambda n: by_faiss(probes[n : n + 1]),
            "numpy": lambda n: rows @ probes[n],
            "gallery, 16 together": lambda n: gallery.nearest_each(probes[n : n + TOGETHER], 10),
            "faiss flat, 16 together": lambda n: by_faiss(probes[n : n + TOGETHER]),
        }
        server = None
        if pgvector:
            server, by_pgvector = postgres(rows)
            ways["pgvector exact"] = lambda n: by_pgvector(probes[n])
        try:
            for n in range(3):
                for way in ways.values():
                    way(rounds + n)
            times: dict[str, list[float]] = {name: [] for name in ways}
            for n in range(rounds):
                for name, way in ways.items():
                    times[name].append(milliseconds(lambda way=way, n=n: way(n)))  # type: ignore[misc]
        finally:
            if server is not None:
                server()
        changed = rng.integers(size, size=50)
        put = statistics.median(milliseconds(lambda n=n: gallery.put(int(n), rows[n])) for n in changed)  # type: ignore[misc]
        wrong = sum(
            found != expected
            for some in np.split(probes[:checked], range(TOGETHER, checked, TOGETHER))
            for found, expected in zip(
                gallery.nearest_each(some, 10), brute_force(rows, some, 10), strict=True
            )
        )
    return {
        "rows": size,
        "building_ms": round(building),
        "put_ms": round(put, 3),
        "bytes_per_row": round(gallery.nbytes / size),
        "resident_mib": round(held, 1),
        "checked": checked,
        "differing_from_brute_force": wrong,
        "p50": {name: round(statistics.median(each), 3) for name, each in times.items()},
        "p95": {name: round(float(np.quantile(each, 0.95)), 3) for name, each in times.items()},
        "faiss flat / gallery": ratio(times, "faiss flat", "gallery"),
        "numpy / gallery": ratio(times, "numpy", "gallery"),
        "faiss flat / gallery, 16 together": ratio(times, "faiss flat, 16 together", "gallery, 16 together"),
        **({"pgvector exact / gallery": ratio(times, "pgvector exact", "gallery")} if pgvector else {}),
    }


def ratio(times: dict[str, list[float]], slow: str, fast: str) -> float:
    """Return the median of the rounds' ratios."""
    return round(statistics.median(a / b for a, b in zip(times[slow], times[fast], strict=True)), 2)


def postgres(rows: Rows) -> tuple[Callable[[], None], Callable[[Rows], object]]:
    """Return a way to stop a fresh server that holds the rows, and an exact scan of them by pgvector."""
    import psycopg  # noqa: PLC0415

    from tests.support.postgres import postgres_server, url_of  # noqa: PLC0415

    running = postgres_server()
    server = running.__enter__()
    address = url_of(server, "postgres").replace("postgresql+psycopg", "postgresql")
    connection = psycopg.connect(address, autocommit=True)
    connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
    connection.execute(f"CREATE TABLE held (id bigint PRIMARY KEY, v vector({rows.shape[1]}))")
    with connection.cursor().copy("COPY held FROM STDIN") as copy:
        for number, row in enumerate(rows):
            copy.write_row((number, "[" + ",".join(map(str, row.tolist())) + "]"))
    connection.execute("ANALYZE held")
    query = "SELECT id FROM held ORDER BY v <-> %s::vector LIMIT 10"

    def stop() -> None:
        connection.close()
        running.__exit__(None, None, None)

    return stop, lambda probe: connection.execute(query, (str(probe.tolist()),)).fetchall()


def plot(results: list[dict[str, Any]], path: Path) -> None:
    """Draw the p50 of each way against the number of rows."""
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure((7.0, 4.5), layout="constrained")
    axes = figure.subplots()
    for name in ("gallery", "faiss flat", "numpy", "pgvector exact"):
        points = [(r["rows"], r["p50"][name]) for r in results if name in r["p50"]]
        if points:
            axes.loglog(*zip(*points, strict=True), marker="o", label=name)
    axes.set(xlabel="identities", ylabel="milliseconds a search (median)")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)


@click.command(help=__doc__)
@click.option("--sizes", default="1000,10000,100000,1000000", show_default=True)
@click.option("--dimensions", default=128, show_default=True)
@click.option("--rounds", default=15, show_default=True)
@click.option("--threads", default=0, help="0: as many as cores")
@click.option("--checked", default=1000, show_default=True, help="probes compared with brute force")
@click.option("--embeddings", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--pgvector", is_flag=True, help="also an exact scan by PostgreSQL")
@click.option("--plot", "picture", type=click.Path(dir_okay=False, path_type=Path))
def main(
    sizes: str,
    dimensions: int,
    rounds: int,
    threads: int,
    checked: int,
    embeddings: Path | None,
    pgvector: bool,
    picture: Path | None,
) -> None:
    """Run the benchmark and print its figures as JSON."""
    cores = threads or len(os.sched_getaffinity(0))
    real = None
    if embeddings is not None:
        with np.load(embeddings, allow_pickle=False) as held:
            real = unit(held["embeddings"][held["ok"]])
            dimensions = real.shape[1]
    results = []
    for size in (int(text) for text in sizes.split(",")):
        results.append(measured(size, dimensions, rounds, checked, real, pgvector, cores))
        click.echo(json.dumps(results[-1]), err=True)
    click.echo(json.dumps({"threads": cores, "dimensions": dimensions, "sizes": results}, indent=2))
    if picture is not None:
        plot(results, picture)


if __name__ == "__main__":
    main()
