"""Whether thresholds hold on people they were not measured on: splits of the subjects, galleries that grow.

    visavis embed --model faces --out people.npz photos/
    python -m benchmarks.evidence --embeddings people.npz --out runs/evidence [--sizes 50,100]

Reads what ``visavis embed`` wrote of ``<subject>/<image>`` photos. Subjects are split in two, many times.
With ``--given OTHER.npz`` the thresholds come from the people of that file who are not in the first one, and
the rates from all of the first.

- **verification**: thresholds for FMR 1e-2, 1e-3 and 1e-4 from one half; the FMR of the other half there,
  and whether it lies within the bound that the first half stated.
- **identification**: thresholds for ``max_fpir`` 0.1 and 0.01 from one half; the share of searches by
  strangers of the other half that return somebody, in galleries drawn from it. Beside it a fixed threshold
  (FMR 1e-3), and what 1 - (1 - FMR)^N would have predicted.

A bound of 95 % is for the true rate. The other half's measured rate is uncertain by as much as the first's,
so it should lie within the bound in 88 of 100 splits, not 95: the difference of the two has a standard
deviation 1.41 times as large.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from app.cli.common import progress_bar
from app.errors import InsufficientEvidenceError
from app.matching.evidence import Evidence
from app.matching.trials import all_trials

FMR_TARGETS = (1e-2, 1e-3, 1e-4)
FPIR_TARGETS = (0.1, 0.01)
LEAST_STRANGERS = 20
"""Subjects that must remain outside the gallery."""
DRAWS = 20
"""Galleries drawn for each split."""


@dataclass(frozen=True)
class People:
    """Embeddings float32[N, D] with the subject int32[N] of each, from 0 without gaps."""

    embeddings: NDArray[np.float32]
    labels: NDArray[np.int32]

    @property
    def subjects(self) -> int:
        """How many there are."""
        return int(self.labels.max()) + 1

    def only(self, subjects: NDArray[np.intp]) -> People:
        """Return the images of some subjects, numbered anew."""
        mine = np.isin(self.labels, subjects)
        _, labels = np.unique(self.labels[mine], return_inverse=True)
        return People(self.embeddings[mine], labels.astype(np.int32))

    def halves(self, rng: np.random.Generator) -> tuple[People, People]:
        """Return two halves without a common subject."""
        order = rng.permutation(self.subjects)
        return self.only(order[: order.size // 2]), self.only(order[order.size // 2 :])

    def evidence(self) -> Evidence:
        """Return the trials of all pairs."""
        return all_trials(self.embeddings, self.labels, "euclidean")


def read_people(path: Path, *, but: Path | None = None) -> People:
    """Read what ``visavis embed`` wrote; the subject is the name of a photo's folder.

    Args:
        path: The file.
        but: Another one, whose subjects are left out.
    """
    with np.load(path, allow_pickle=False) as arrays:
        ok = arrays["ok"]
        names, embeddings = _folders(arrays["paths"][ok]), arrays["embeddings"][ok]
    if but is not None:
        with np.load(but, allow_pickle=False) as arrays:
            kept = ~np.isin(names, _folders(arrays["paths"]))
        names, embeddings = names[kept], embeddings[kept]
    _, labels = np.unique(names, return_inverse=True)
    return People(embeddings, labels.astype(np.int32))


def _folders(paths: NDArray[np.str_]) -> NDArray[np.str_]:
    return np.array([str(path).replace("\\", "/").split("/")[-2] for path in paths])


def verification(given: Evidence, other: Evidence) -> dict[str, dict[str, float]]:
    """Return the thresholds of one half and what the other half has there."""
    found = {}
    for target in FMR_TARGETS:
        try:
            point = given.point_for_fmr(target)
        except InsufficientEvidenceError:
            continue
        measured = other.fmr(point.threshold)
        assert measured is not None
        found[f"{target:g}"] = {
            "threshold": point.threshold,
            "stated_upper95": float(point.fmr_upper95 or 1.0),
            "measured": measured,
            "stated_fnmr": float(point.fnmr or 0.0),
            "stated_fnmr_lower95": float(point.fnmr_lower95 or 0.0),
            "stated_fnmr_upper95": float(point.fnmr_upper95 or 1.0),
            "measured_fnmr": float(other.fnmr(point.threshold) or 0.0),
        }
    return found


def nearest_strangers(people: People, size: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return the distance of each search by a stranger to the nearest of a gallery, over drawn galleries."""
    found = []
    for _ in range(DRAWS):
        order = rng.permutation(people.labels.size)
        subjects, first = np.unique(people.labels[order], return_index=True)
        enrolled = rng.permutation(subjects.size)[:size]
        gallery = people.embeddings[order[first[enrolled]]]
        strangers = ~np.isin(people.labels, subjects[enrolled])
        products = people.embeddings[strangers] @ gallery.T
        found.append(np.sqrt(np.maximum(2.0 - 2.0 * products.max(axis=1), 0.0)))
    return np.concatenate(found)


def identification(
    given: Evidence, other: People, size: int, rng: np.random.Generator
) -> dict[str, dict[str, float]]:
    """Return what was promised for a gallery's size and what searches of the other half found."""
    nearest = nearest_strangers(other, size, rng)
    found = {}
    for target in FPIR_TARGETS:
        try:
            point = given.point_for_fpir(target, size)
        except InsufficientEvidenceError as error:
            found[f"{target:g}"] = {"smallest_supported": float(str(error.details()["smallest_supported"]))}
            continue
        stated = given.fpir(point.threshold, size)
        assert stated is not None
        found[f"{target:g}"] = {
            "threshold": point.threshold,
            "stated": stated[0],
            "stated_upper95": stated[1],
            "by_independence": 1.0 - (1.0 - float(point.fmr or 0.0)) ** size,
            "measured": float((nearest <= point.threshold).mean()),
        }
    fixed = given.point_for_fmr(1e-3)
    both = given.fpir(fixed.threshold, size)
    found["fixed"] = {
        "threshold": fixed.threshold,
        "stated": both[0] if both else 1.0,
        "stated_upper95": both[1] if both else 1.0,
        "by_independence": 1.0 - (1.0 - float(fixed.fmr or 0.0)) ** size,
        "measured": float((nearest <= fixed.threshold).mean()),
    }
    return found


def spread(rows: list[dict[str, float]]) -> dict[str, float]:
    """Return means over the splits, and how often the measured rate lay within the stated bound."""
    known = [row for row in rows if "measured" in row]
    if not known:
        return {"splits": 0, "smallest_supported": float(np.mean([r["smallest_supported"] for r in rows]))}
    out = {name: float(np.mean([row[name] for row in known])) for name in known[0]}
    out["measured_low"] = min(row["measured"] for row in known)
    out["measured_high"] = max(row["measured"] for row in known)
    out["within_bound"] = float(np.mean([row["measured"] <= row["stated_upper95"] for row in known]))
    return {"splits": len(known), **out}


def table(results: dict[str, Any]) -> str:
    """Return the page."""
    lines = [
        f"{results['subjects']} subjects, {results['images']} images; {results['splits']} splits in two.",
        "",
        "| FMR asked | threshold | FMR of the other half (smallest to largest) | bound stated | within the "
        "bound | FNMR stated | FNMR of the other half |",
        "|---|---|---|---|---|---|---|",
    ]
    for target, of in results["verification"].items():
        lines.append(
            f"| {target} | {of['threshold']:.4f} | {of['measured']:.2e} ({of['measured_low']:.2e} to "
            f"{of['measured_high']:.2e}) | {of['stated_upper95']:.2e} | {of['within_bound']:.0%} | "
            f"{of['stated_fnmr']:.4f} | {of['measured_fnmr']:.4f} |"
        )
    lines += [
        "",
        "| gallery | asked | threshold | FPIR measured (smallest to largest) | predicted | bound stated | "
        "within the bound | 1 - (1 - FMR)^N |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for size, by_target in results["identification"].items():
        for target, of in by_target.items():
            asked = "fixed, FMR 1e-3" if target == "fixed" else f"max_fpir {target}"
            if not of["splits"]:
                refused = f"refused: smallest supported {of['smallest_supported']:.3g}"
                lines.append(f"| {size} | {asked} | {refused} | | | | | |")
                continue
            lines.append(
                f"| {size} | {asked} | {of['threshold']:.4f} | {of['measured']:.4f} "
                f"({of['measured_low']:.4f} to {of['measured_high']:.4f}) | {of['stated']:.4f} | "
                f"{of['stated_upper95']:.4f} | "
                f"{of['within_bound']:.0%} | {of['by_independence']:.4f} |"
            )
    return "\n".join(lines) + "\n"


def growth(results: dict[str, Any]) -> bytes:
    """Draw the measured FPIR over the gallery's size: held by ``max_fpir``, drifting at a fixed threshold."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - comes with an extra
    from matplotlib.ticker import FuncFormatter  # noqa: PLC0415

    from training.pictures import style  # noqa: PLC0415

    @style.styled
    def plotted() -> Figure:
        figure = Figure(figsize=(6.4, 4.0), layout="constrained")
        axes = figure.add_subplot()
        named = {"fixed": "fixed threshold, FMR 1e-3", "0.1": "max_fpir 0.1", "0.01": "max_fpir 0.01"}
        for index, (target, label) in enumerate(named.items()):
            known = [
                (int(size), of[target])
                for size, of in results["identification"].items()
                if of[target]["splits"]
            ]
            if not known:
                continue
            sizes = [size for size, _ in known]
            low, high = ([of[end] for _, of in known] for end in ("measured_low", "measured_high"))
            shade = style.colour(index)
            axes.plot(
                sizes,
                [of["measured"] for _, of in known],
                marker=style.marker(index),
                label=label,
                color=shade,
            )
            axes.fill_between(sizes, low, high, alpha=0.15, linewidth=0, color=shade)
        axes.set(xscale="log", yscale="log", xlabel="identities enrolled", ylabel="FPIR on other people")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.legend()
        return figure

    return style.png(plotted())


@click.command(help=__doc__)
@click.option("--embeddings", type=click.Path(path_type=Path, exists=True), required=True)
@click.option(
    "--given", "given_file", type=click.Path(path_type=Path, exists=True), help="whose thresholds to take"
)
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--sizes", default="50,100", show_default=True, help="sizes of galleries")
@click.option("--splits", default=20, show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(embeddings: Path, given_file: Path | None, out: Path, sizes: str, splits: int, seed: int) -> None:
    """Split, measure, and write results, table and picture."""
    people = read_people(embeddings)
    others = None if given_file is None else read_people(given_file, but=embeddings).evidence()
    everybody = None if others is None else people.evidence()
    rng = np.random.default_rng(seed)
    by_fmr: dict[str, list[dict[str, float]]] = defaultdict(list)
    by_size: dict[int, dict[str, list[dict[str, float]]]] = defaultdict(lambda: defaultdict(list))
    with progress_bar(splits, "splits") as progress:
        for _ in range(splits):
            first, second = people.halves(rng) if others is None else (people, people)
            given, other = others or first.evidence(), everybody or second.evidence()
            for target, row in verification(given, other).items():
                by_fmr[target].append(row)
            for size in (int(text) for text in sizes.split(",")):
                if second.subjects - size >= LEAST_STRANGERS:
                    for target, row in identification(given, second, size, rng).items():
                        by_size[size][target].append(row)
            progress(1)
    results = {
        "subjects": people.subjects,
        "images": int(people.labels.size),
        "splits": splits,
        "verification": {target: spread(rows) for target, rows in by_fmr.items()},
        "identification": {
            str(size): {target: spread(rows) for target, rows in by_target.items()}
            for size, by_target in by_size.items()
        },
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "evidence.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    text = table(results)
    (out / "evidence.md").write_text(text, encoding="utf-8")
    click.echo(text)
    (out / "galleries.png").write_bytes(growth(results))


if __name__ == "__main__":
    main()
