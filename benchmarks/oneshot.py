"""One-shot identification over HTTP: enrol one image of each character or digit, identify the others.

    python -m benchmarks.oneshot --model omniglot --data data
    python -m benchmarks.oneshot --model digits --data data

Starts a real server with the model. ``omniglot``: each alphabet of the evaluation set is a collection; one
drawer's characters are enrolled, all other drawings are identified; then each of the 20 official runs is a
collection of its own. ``digits``: one test image of each digit is enrolled and 1,000 others are identified,
for ten choices of the references, since a rate from ten images says much about those ten.
"""

from __future__ import annotations

import io
import json
import re
import tempfile
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import click
import httpx2
import numpy as np
from PIL import Image

from app.resources import resource_dir
from benchmarks.serve import start_server
from training.data.mnist import read_mnist


@dataclass
class Gallery:
    """One collection: a reference and probes of each subject, as image files."""

    name: str
    kind: str
    references: dict[str, bytes]
    probes: list[tuple[str, bytes]]


def omniglot(data: Path) -> Iterator[Gallery]:
    """Yield the alphabets of the evaluation set, then the official runs."""
    alphabets: dict[str, list[tuple[str, int, bytes]]] = {}
    with zipfile.ZipFile(data / "omniglot" / "images_evaluation.zip") as archive:
        for member in sorted(archive.namelist()):
            found = re.search(r"([^/]+)/([^/]+)/\d+_(\d+)\.png$", member)
            if found and "__MACOSX" not in member:
                alphabet, character, drawer = found.groups()
                alphabets.setdefault(alphabet, []).append((character, int(drawer), archive.read(member)))
    for number, (_, drawn) in enumerate(sorted(alphabets.items())):
        references = {character: data for character, drawer, data in drawn if drawer == 1}
        probes = [(character, data) for character, drawer, data in drawn if drawer != 1]
        yield Gallery(f"alphabet-{number}", "evaluation alphabets", references, probes)
    with zipfile.ZipFile(data / "omniglot" / "all_runs.zip") as archive:
        prefix = next(n for n in archive.namelist() if n.endswith("run01/class_labels.txt"))[
            : -len("run01/class_labels.txt")
        ]
        for run in range(1, 21):
            lines = archive.read(f"{prefix}run{run:02}/class_labels.txt").decode().split("\n")
            pairs = [line.split() for line in lines if line.strip()]
            references = {Path(right).stem: archive.read(prefix + right) for _, right in pairs}
            probes = [(Path(right).stem, archive.read(prefix + item)) for item, right in pairs]
            yield Gallery(f"run-{run}", "official runs", references, probes)


def digits(data: Path) -> Iterator[Gallery]:
    """Yield ten galleries of ten test digits, each with 1,000 probes."""
    test = read_mnist(data, "test")
    files = [_png(image[:, :, 0]) for image in test.images]
    rng = np.random.default_rng(1)
    for number in range(10):
        chosen = [
            int(np.flatnonzero(test.labels == digit)[0])
            if number == 0
            else int(rng.choice(np.flatnonzero(test.labels == digit)))
            for digit in range(10)
        ]
        others = np.setdiff1d(rng.permutation(len(files))[:1010], chosen)[:1000]
        yield Gallery(
            f"digits-{number}",
            "test digits",
            {str(digit): files[row] for digit, row in enumerate(chosen)},
            [(str(test.labels[row]), files[row]) for row in others],
        )


def _png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def run(client: httpx2.Client, gallery: Gallery, model: str, pool: ThreadPoolExecutor) -> dict[str, int]:
    """Enrol and identify one gallery; returns counts."""
    client.post("/collections", json={"name": gallery.name, "model": model}).raise_for_status()
    for identity, data in gallery.references.items():
        client.post(
            "/enroll",
            files={"image": ("reference.png", data)},
            data={"identity": identity, "collection": gallery.name},
        ).raise_for_status()

    def first(probe: tuple[str, bytes]) -> tuple[bool, bool]:
        identity, data = probe
        answer = client.post(
            "/identify",
            files={"image": ("probe.png", data)},
            data={"collection": gallery.name, "top_k": "1"},
        )
        answer.raise_for_status()
        best = answer.json()["candidates"][0]
        return best["identity"] == identity, best["match"]

    found = list(pool.map(first, gallery.probes))
    return {
        "probes": len(found),
        "wrong": sum(not right for right, _ in found),
        "right_and_match": sum(right and match for right, match in found),
        "wrong_and_match": sum(match and not right for right, match in found),
    }


@click.command(help=__doc__)
@click.option("--model", type=click.Choice(["omniglot", "digits"]), required=True)
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--models-dir", type=click.Path(exists=True, file_okay=False, path_type=Path))
def main(model: str, data: Path, models_dir: Path | None) -> None:
    """Run it and print the counts and error rates as JSON."""
    galleries = omniglot(data) if model == "omniglot" else digits(data)
    totals: dict[str, dict[str, int]] = {}
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(4) as pool:
        environment = {
            "VISAVIS_MODELS": model,
            "VISAVIS_MODELS_DIR": str((models_dir or resource_dir("models")).resolve()),
        }
        server, port, _ = start_server(Path(folder), environment)
        try:
            with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
                for gallery in galleries:
                    counts = totals.setdefault(gallery.kind, {"galleries": 0})
                    counts["galleries"] += 1
                    for name, value in run(client, gallery, model, pool).items():
                        counts[name] = counts.get(name, 0) + value
        finally:
            server.terminate()
            server.wait()
    report = {
        kind: {**counts, "error_rate": counts["wrong"] / counts["probes"]} for kind, counts in totals.items()
    }
    click.echo(json.dumps({"model": model, **report}, indent=2))


if __name__ == "__main__":
    main()
