"""Precision and recall of the audit: errors planted in a labelled set of photos.

    python -m benchmarks.audit --data FOLDER --out FOLDER [--embeddings FILE.npz] [--seeds 10] [--planted 20]

``--data`` holds ``<subject>/<image>``. The subjects are halved at random. The one half gives the evidence
(all its pairs, as a calibration would measure it), the other is audited, so no rate was measured on what is
judged; with ``--evidence model`` the model's own evidence is used, which may have been measured on the set.

Three audits a seed, each of the other half: (a) all photos, with duplicates planted by giving half of a
subject's photos to a new name; (b) all photos, with photos of two subjects exchanged, and photos of subjects
that are left out given to others; (c) a gallery of one photo each, with a second photo of some subjects
enrolled under a new name. What an audit of the untouched half finds is taken for an error of the set's own
labels: it is counted as "own", neither right nor wrong, and shown on a page (``own.html``) to be judged by
eye.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import click
import numpy as np
from numpy.typing import NDArray

from app.encoding.bulk import embed_files
from app.encoding.manifest import Manifest
from app.encoding.model import open_model
from app.matching.audit import Audit, AuditResult
from app.matching.evidence import Evidence, read_evidence
from app.matching.trials import all_trials
from app.pages.audit import audit_page
from app.services.audit import Sample
from app.settings import load_settings
from training.measured_evidence import operating_points, subject_images

T = TypeVar("T")


@dataclass
class Tally:
    """Findings against what was planted."""

    planted: int = 0
    found: int = 0
    wrong: int = 0
    own: int = 0

    def add(self, planted: Set[T], reported: Iterable[T], own: Set[T]) -> None:
        """Count one audit."""
        found = set(reported)
        self.planted += len(planted)
        self.found += len(planted & found)
        self.own += len((found - planted) & own)
        self.wrong += len(found - planted - own)

    def as_json(self) -> dict[str, object]:
        """Return counts, precision and recall."""
        judged = self.found + self.wrong
        return {
            **vars(self),
            "precision": self.found / judged if judged else None,
            "recall": self.found / self.planted if self.planted else None,
        }


@dataclass(frozen=True, eq=False)
class Photos:
    """Usable photos: float32[N, D], int32[N] and their files; labels number the subjects without gaps."""

    embeddings: NDArray[np.float32]
    labels: NDArray[np.int32]
    names: tuple[str, ...]
    files: tuple[Path, ...]

    def of(self, subjects: NDArray[np.int64]) -> Photos:
        """Return the photos of some subjects, numbered anew in that order."""
        number = np.full(len(self.names), -1)
        number[subjects] = np.arange(subjects.size)
        rows = np.flatnonzero(number[self.labels] >= 0)
        return Photos(
            self.embeddings[rows],
            number[self.labels[rows]].astype(np.int32),
            tuple(self.names[subject] for subject in subjects),
            tuple(self.files[row] for row in rows),
        )

    def rows_of(self, subject: int) -> NDArray[np.intp]:
        """Return the rows of a subject."""
        return np.flatnonzero(self.labels == subject)


class Judge:
    """Audits with one evidence."""

    def __init__(self, manifest: Manifest, evidence: Evidence) -> None:
        self.manifest, self.evidence = manifest, evidence
        self.points = operating_points(evidence)
        wanted = manifest.default_operating_point
        names = [point.name for point in self.points]
        self.default = wanted if wanted in names else str(names[-1])

    def __call__(self, embeddings: NDArray[np.float32], labels: NDArray[np.int32]) -> AuditResult:
        """Return what an audit finds."""
        return Audit(
            embeddings, labels, self.manifest.metric, self.evidence, self.points, default=self.default
        ).run()


def duplicate_pairs(result: AuditResult) -> set[tuple[int, int]]:
    return {(pair.first, pair.second) for pair in result.duplicates if pair.likely}


def plant_duplicates(
    photos: Photos, count: int, draw: np.random.Generator
) -> tuple[NDArray[np.int32], set[tuple[int, int]]]:
    """Give half of the photos of some subjects to new names; returns labels and the pairs."""
    sizes = np.bincount(photos.labels)
    chosen = draw.choice(np.flatnonzero(sizes >= 4), count, replace=False)
    labels = photos.labels.copy()
    planted: set[tuple[int, int]] = set()
    for number, subject in enumerate(chosen.tolist()):
        rows = draw.permutation(photos.rows_of(subject))
        labels[rows[: rows.size // 2]] = sizes.size + number
        planted.add((subject, int(sizes.size) + number))
    return labels, planted


def plant_mislabels(
    photos: Photos, strangers: Photos, count: int, draw: np.random.Generator
) -> tuple[Photos, set[int], set[int]]:
    """Exchange photos between subjects, and add strangers' photos; returns rows exchanged and rows added."""
    sizes = np.bincount(photos.labels)
    chosen = draw.choice(np.flatnonzero(sizes >= 4), 2 * count, replace=False)
    rows = np.array([draw.choice(photos.rows_of(subject)) for subject in chosen.tolist()])
    labels = photos.labels.copy()
    labels[rows[:count]], labels[rows[count:]] = chosen[count:], chosen[:count]
    new = draw.choice(strangers.labels.size, count, replace=False)
    others = np.setdiff1d(np.flatnonzero(sizes >= 4), chosen)
    added = Photos(
        np.concatenate([photos.embeddings, strangers.embeddings[new]]),
        np.concatenate([labels, draw.choice(others, count, replace=False)]).astype(np.int32),
        photos.names,
        photos.files + tuple(strangers.files[row] for row in new),
    )
    return added, set(rows.tolist()), set(range(photos.labels.size, photos.labels.size + count))


def one_photo_each(
    photos: Photos, count: int, draw: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.int64], set[tuple[int, int]]]:
    """Draw a reference of each subject, and a second one of some; returns rows and the planted pairs."""
    subjects = len(photos.names)
    first = [int(draw.choice(photos.rows_of(subject))) for subject in range(subjects)]
    able = np.flatnonzero(np.bincount(photos.labels) >= 2)
    chosen = draw.choice(able, count, replace=False).tolist()
    second = [int(draw.choice(np.setdiff1d(photos.rows_of(one), [first[one]]))) for one in chosen]
    rows = np.array(first + second)
    return photos.embeddings[rows], rows, {(one, subjects + number) for number, one in enumerate(chosen)}


def read_photos(data: Path, manifest: Manifest, models_dir: Path, cached: Path | None) -> Photos:
    """Return the usable photos of a folder, embedded or from a cache made by ``visavis embed``."""
    listed = subject_images(data)
    if cached is None:
        model = open_model(models_dir / manifest.model_id)
        made = embed_files(model.images, [path for _, path in listed], "central")
        embeddings, ok = made.embeddings, made.ok
    else:
        with np.load(cached, allow_pickle=False) as arrays:
            places = {"/".join(Path(str(path)).parts[-2:]): at for at, path in enumerate(arrays["paths"])}
            at = [places[f"{subject}/{path.name}"] for subject, path in listed]
            embeddings, ok = arrays["embeddings"][at], arrays["ok"][at]
    names, labels = np.unique([subject for subject, _ in listed], return_inverse=True)
    usable = np.flatnonzero(ok)
    kept, numbers = np.unique(labels[usable], return_inverse=True)
    return Photos(
        embeddings[usable].astype(np.float32),
        numbers.astype(np.int32),
        tuple(str(names[label]) for label in kept),
        tuple(listed[row][1] for row in usable),
    )


@click.command()
@click.option("--data", required=True, type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False))
@click.option("--embeddings", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--model", default="faces", show_default=True)
@click.option("--evidence", type=click.Choice(["half", "model"]), default="half", show_default=True)
@click.option("--seeds", default=10, show_default=True)
@click.option("--planted", default=20, show_default=True, help="Errors of each kind.")
def main(
    data: Path, out: Path, embeddings: Path | None, model: str, evidence: str, seeds: int, planted: int
) -> None:
    """Plant errors in a labelled set and count which the audit finds."""
    settings = load_settings()
    folder = settings.models_dir / model
    manifest = Manifest.model_validate_json((folder / "manifest.json").read_text(encoding="utf-8"))
    photos = read_photos(data, manifest, settings.models_dir, embeddings)
    of_model = read_evidence(folder / "evidence.npz")
    out.mkdir(parents=True, exist_ok=True)

    own = Judge(manifest, of_model)(photos.embeddings, photos.labels)
    sample = Sample(photos.names, photos.labels, photos.embeddings, photos.files)
    page = audit_page(own, sample, title=f"{data.name}: its own labels", model=model)
    (out / "own.html").write_text(page, encoding="utf-8")

    kinds = ("duplicates_all_photos", "swapped", "strangers", "duplicates_one_photo")
    tallies = {kind: Tally() for kind in kinds}
    started = time.perf_counter()
    for seed in range(seeds):
        draw = np.random.default_rng(seed)
        order = draw.permutation(len(photos.names))
        half = photos.of(order[: order.size // 2])
        other = photos.of(order[order.size // 2 :])
        measured = (
            all_trials(other.embeddings, other.labels, manifest.metric) if evidence == "half" else of_model
        )
        judge = Judge(manifest, measured)
        clean = judge(half.embeddings, half.labels)
        own_pairs = set(duplicate_pairs(clean))
        own_swapped = {one.image for one in clean.swapped}
        own_odd = own_swapped | {one.image for one in clean.strangers}

        labels, pairs = plant_duplicates(half, planted, draw)
        found = duplicate_pairs(judge(half.embeddings, labels))
        # A subject that was split may be one that the set has twice: both parts are then its duplicates.
        split = {second: first for first, second in pairs}
        as_before = {tuple(sorted((split.get(a, a), split.get(b, b)))): (a, b) for a, b in found}
        own_again = {pair for key, pair in as_before.items() if key in own_pairs}
        tallies["duplicates_all_photos"].add(pairs, found, own_again)

        mixed, exchanged, added = plant_mislabels(half, other, planted, draw)
        result = judge(mixed.embeddings, mixed.labels)
        tallies["swapped"].add(exchanged, (one.image for one in result.swapped), own_odd)
        odd = {one.image for one in result.strangers}
        tallies["strangers"].add(added, odd - exchanged, own_odd)

        rows_of, rows, twice = one_photo_each(half, planted, draw)
        result = judge(rows_of, np.arange(rows.size, dtype=np.int32))
        subjects = half.labels[rows]
        own_here = {
            pair for pair in duplicate_pairs(result)
            if tuple(sorted(subjects[list(pair)].tolist())) in own_pairs
        }  # fmt: skip
        tallies["duplicates_one_photo"].add(twice, duplicate_pairs(result), own_here)
        click.echo(f"seed {seed}: " + json.dumps({k: vars(t) for k, t in tallies.items()}), err=True)
    report = {
        "command": " ".join(sys.argv),
        "evidence": evidence,
        "subjects": len(photos.names),
        "photos": int(photos.labels.size),
        "seeds": seeds,
        "planted": planted,
        "seconds": round(time.perf_counter() - started, 1),
        "own": {
            "duplicates": [[photos.names[a], photos.names[b]] for a, b in sorted(duplicate_pairs(own))],
            "swapped": len(own.swapped),
            "strangers": len(own.strangers),
            "mixed": [photos.names[one.label] for one in own.mixed],
            "look_alikes": len(own.look_alikes),
        },
        **{kind: tally.as_json() for kind, tally in tallies.items()},
    }
    (out / "audit.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    click.echo(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
