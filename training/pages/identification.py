"""The page of ``visavis evaluate identification``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from app.encoding.bulk import Embedded
from training.evaluation.folders import LabelledFiles
from training.evaluation.identification import Gallery, OpenSetRates, Searches, Share
from training.pages.common import (
    SHOWN,
    Measurement,
    decided,
    failures,
    histogram,
    interval,
    no_image_twice,
    page,
    shot,
)
from training.pictures.distances import Band, ErrorCurve, det_curve
from training.pictures.rates import Series, cmc_curve, rates_over_threshold
from training.pictures.report import Block, Comparison, Report, Result, ShotGroup, Table
from training.pictures.style import percent

_INTERVALS: Final = 60
"""Thresholds along the curves at which intervals are measured."""


def identification_page(
    measured: Measurement,
    *,
    files: LabelledFiles,
    embedded: Embedded,
    galleries: Sequence[Gallery],
    searches: Searches,
    ranks: Mapping[int, Share],
    rates: Mapping[str, OpenSetRates | str],
) -> Report:
    """Return the page.

    Args:
        measured: Model, folder, settings.
        files: The images with their subjects.
        embedded: The same images, embedded.
        galleries: As drawn.
        searches: Those of all galleries, in their order.
        ranks: Identification rate by rank.
        rates: FPIR and FNIR by where the threshold comes from, or why there is none.
    """
    mated_sides, nonmated_sides = _images(galleries, searches, files, embedded.ok)
    report = page(
        measured,
        title="1:N identification",
        results=_results(searches, ranks, measured),
        blocks=[
            _worst(measured, embedded, searches, mated_sides, nonmated_sides),
            failures(embedded, measured.data),
        ],
    )
    report.points_lead = (
        f"FPIR is the share of searches by subjects not enrolled that return anyone at a distance of at most "
        f"the threshold, FNIR the share of searches by enrolled subjects whose reference is not returned at "
        f"rank 1. Both are for a gallery of {searches.gallery_size:,}."
    )
    report.point_tables = [_points(rates)]
    _curves(report, measured, searches, rates)
    histogram(
        report,
        measured,
        searches.mated.distance,
        searches.nonmated.distance,
        caption="Mated: an enrolled subject's other image and its reference; non-mated: an image of a "
        "subject not enrolled and the nearest reference, whoever it is of.",
    )
    _by_rank(report, measured, searches)
    return report


def _results(searches: Searches, ranks: Mapping[int, Share], measured: Measurement) -> list[Result]:
    note = f"{searches.mated.rank.size:,} mated searches in galleries of {searches.gallery_size:,}"
    results = [
        Result(
            f"Right subject within rank {rank}", share.rate, share.lower95, share.upper95, note, key=rank == 1
        )
        for rank, share in ranks.items()
    ]
    point = measured.model.manifest.default_point
    at = searches.at(point.threshold)
    strangers = f"{searches.nonmated.nearest.size:,} non-mated searches; threshold of {point.name}"
    for name, share, text in (("FPIR", at.fpir, strangers), ("FNIR", at.fnir, f"{note}; {point.name}")):
        results.append(
            Result(f"{name} at the default", share.rate, share.lower95, share.upper95, text, key=True)
        )
    return results


def _points(rates: Mapping[str, OpenSetRates | str]) -> Table:
    rows = []
    for name, at in rates.items():
        if isinstance(at, str):
            rows.append([name, "-", at, "", "", ""])
        else:
            cells = [(percent(s.rate), interval(s.lower95, s.upper95)) for s in (at.fpir, at.fnir)]
            rows.append([name, f"{at.threshold:.4f}", *cells[0], *cells[1]])
    return Table(
        "FPIR: threshold found on these searches; max_fpir: from the model's evidence for such a gallery",
        ["threshold for", "threshold", "FPIR", "95 % interval", "FNIR", "95 % interval"],
        rows,
    )


def _curves(
    report: Report, measured: Measurement, searches: Searches, rates: Mapping[str, OpenSetRates | str]
) -> None:
    curve = searches.curve()
    inner = curve.thresholds[(curve.fpir > 0.0) & (curve.fpir < 1.0) & np.isfinite(curve.thresholds)]
    chosen = _spread(inner if inner.size else curve.thresholds[1:])
    at = [searches.at(float(threshold)) for threshold in chosen]
    fpir, fnir = (
        Series(
            *(
                np.array([getattr(getattr(r, kind), end) for r in at])
                for end in ("rate", "lower95", "upper95")
            )
        )
        for kind in ("fpir", "fnir")
    )
    assert fnir.lower is not None and fnir.upper is not None  # noqa: S101, PT018 - given above
    drawn = ErrorCurve(
        curve.thresholds,
        curve.fpir,
        curve.fnir,
        searches.mated.rank.size,
        searches.nonmated.nearest.size,
        Band(fpir.value, fnir.lower, fnir.upper),
    )
    known = {name: each for name, each in rates.items() if isinstance(each, OpenSetRates)}
    marks = {name: (each.fpir.rate, each.fnir.rate) for name, each in known.items()}
    report.picture(
        det_curve(
            {measured.model.model_id: drawn},
            points={name: pair for name, pair in marks.items() if min(pair) > 0.0 and max(pair) < 0.5},
            searches=True,
        ),
        "FNIR against FPIR",
        caption="Lower left is better. Marks: the thresholds of the table, where neither rate is zero or "
        "above one half. Band: 95 % intervals of the FNIR by subject, the threshold taken as given.",
        alternative="; ".join(
            f"{name}: FPIR {percent(pair[0])}, FNIR {percent(pair[1])}" for name, pair in marks.items()
        )
        + ".",
        section="points",
    )
    manifest = measured.model.manifest
    points = {point.name or "": point.threshold for point in manifest.operating_points}
    report.picture(
        rates_over_threshold(chosen, {"FPIR": fpir, "FNIR": fnir}, points),
        "FPIR and FNIR over the threshold",
        caption="Bands: 95 % intervals by subject. Lines: the thresholds of the model's operating points, "
        "which were set for pairs: the larger the gallery, the higher the FPIR at them.",
        alternative=f"FPIR rises and FNIR falls from a threshold of {chosen[0]:.3f} to {chosen[-1]:.3f}.",
        section="points",
    )


def _spread(thresholds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return some of the thresholds, rising, spread evenly over their order and over their range."""
    if thresholds.size <= _INTERVALS:
        return thresholds
    by_order = np.linspace(0, thresholds.size - 1, _INTERVALS // 2).astype(np.intp)
    even = np.linspace(thresholds[0], thresholds[-1], _INTERVALS // 2)
    return np.asarray(thresholds[np.unique(np.r_[by_order, np.searchsorted(thresholds, even)])], np.float64)


def _by_rank(report: Report, measured: Measurement, searches: Searches) -> None:
    ranks = np.arange(1, searches.cumulative_match().size + 1)
    shares = [searches.identification_rate(int(rank)) for rank in ranks]
    series = Series(*(np.array([getattr(s, end) for s in shares]) for end in ("rate", "lower95", "upper95")))
    report.picture(
        cmc_curve(ranks, {measured.model.model_id: series}),
        "Rank",
        caption="Share of mated searches whose reference is among the R nearest, whatever the distance. "
        "Band: 95 % intervals by subject.",
        alternative=f"{percent(shares[0].rate)} at rank 1, {percent(shares[-1].rate)} at rank {ranks[-1]}.",
        section="results",
        wide=True,
    )


def _images(
    galleries: Sequence[Gallery], searches: Searches, files: LabelledFiles, ok: NDArray[np.bool_]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the images of each search: probe and reference intp[M, 2], probe and nearest intp[K, 2]."""
    mated, nonmated = [], []
    numbers = np.unique(files.labels, return_inverse=True)[1]
    done = 0
    for gallery in galleries:
        reference = np.full(int(numbers.max()) + 1, -1, np.intp)
        reference[numbers[gallery.references]] = gallery.references
        mated.append(np.stack([gallery.mated, reference[numbers[gallery.mated]]], axis=1))
        nearest = searches.nonmated.nearest[done : done + gallery.nonmated.size]
        nonmated.append(np.stack([gallery.nonmated, reference[nearest]], axis=1))
        done += gallery.nonmated.size
    both = np.concatenate(mated), np.concatenate(nonmated)
    assert all(ok[side].all() for side in both)  # noqa: S101 - failures take part in no draw
    return both


def _worst(
    measured: Measurement,
    embedded: Embedded,
    searches: Searches,
    mated: NDArray[np.intp],
    nonmated: NDArray[np.intp],
) -> Block:
    point = measured.model.manifest.default_point

    def group(title: str, caption: str, far: bool) -> ShotGroup:
        distance, sides = (searches.mated.distance, mated) if far else (searches.nonmated.distance, nonmated)
        order = np.argsort(-distance if far else distance, kind="stable")
        comparisons = []
        for row in no_image_twice(order, sides, SHOWN):
            words, right = decided(float(distance[row]), point.threshold, mated=far)
            if far:
                rank = int(searches.mated.rank[row])
                # Found behind somebody else is not found.
                right = right and rank == 1
                words = f"{words.partition(',')[0]} at rank {rank:,}, {'right' if right else 'wrong'}"
            shots = [
                shot(embedded.paths[image], measured.data, role)
                for image, role in zip(sides[row], ("probe", "reference" if far else "nearest"), strict=True)
            ]
            comparisons.append(Comparison(shots, words, right))
        return ShotGroup(title, caption, comparisons)

    return Block(
        "searches",
        "Worst searches",
        lead=f"Decided at {point.threshold:.4f}, the threshold of {point.name}: a solid green frame is a "
        "right outcome, a dashed red one a wrong one. No image is shown twice.",
        groups=[
            group(
                "Mated searches whose reference is farthest",
                "An enrolled subject's other image, and the image it is enrolled with.",
                far=True,
            ),
            group(
                "Non-mated searches that come closest",
                "An image of a subject who is not enrolled, and the nearest reference.",
                far=False,
            ),
        ],
    )
