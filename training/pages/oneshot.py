"""The pages of ``visavis evaluate oneshot`` and ``nway``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.encoding.bulk import Embedded
from training.evaluation.oneshot import OneShotRate, OneShotTrials, is_error
from training.pages.common import SHOWN, Measurement, failures, histogram, interval, page, shot
from training.pictures.rates import Series, oneshot_curve
from training.pictures.report import Block, Comparison, Report, Result, ShotGroup, Table
from training.pictures.style import percent

TABLE_WAYS: Final = (2, 5, 10, 15, 20)


class Drawn(NamedTuple):
    """Trials of one kind with what they showed.

    Attributes:
        trials: Rows of the images that were embedded.
        distance: float64[T, N], see ``trial_distances``.
        curve: Error rates of the model by number of ways.
        pixels: Those of comparing pixels, for the same ways.
        title: Where the trials are from: "within groups".
    """

    trials: OneShotTrials
    distance: NDArray[np.float64]
    curve: Sequence[OneShotRate]
    pixels: Sequence[OneShotRate]
    title: str


def oneshot_page(
    measured: Measurement,
    *,
    embedded: Embedded,
    folder: Path,
    drawn: Sequence[Drawn],
    title: str,
    by: str,
    runs: Mapping[str, float] | None = None,
) -> Report:
    """Return the page.

    Args:
        measured: Model, images, settings.
        embedded: The images that the trials are rows of.
        folder: What the names of images are relative to.
        drawn: Each kind of trials, one at least.
        title: Of the page: "one-shot classification, official runs".
        by: What the intervals take for independent: "run".
        runs: Error rate of each official run; None where the trials were drawn.
    """
    report = page(
        measured,
        title=title,
        results=[result for kind in drawn for result in _results(kind, by)],
        blocks=[
            Block("runs", "Runs", lead="Error rate of each run.", facts=_by_run(runs)) if runs else None,
            Block(
                "distances",
                "Distances",
                lead="What a threshold would make of the same trials. The answers above take the nearest "
                "candidate and use none.",
            ),
            _hardest(drawn, embedded, folder),
            failures(embedded, folder),
        ],
    )
    report.tables = [_table(kind, by) for kind in drawn if len(kind.curve) > 1]
    for kind in drawn:
        if len(kind.curve) > 1:
            _curve(report, kind, by)
    for kind in drawn:
        histogram(
            report,
            measured,
            kind.distance[:, 0],
            kind.distance[:, 1:].ravel(),
            caption=f"{_capital(kind.title)}. Mated: a probe and its right candidate; non-mated: a probe and "
            "each other candidate.",
            section="distances",
        )
    return report


def _results(kind: Drawn, by: str) -> list[Result]:
    rate, pixels = kind.curve[-1], kind.pixels[-1]
    where = f"{rate.ways}-way error, {kind.title}"
    note = f"{rate.errors:,} errors in {rate.trials:,} trials, {rate.ties:,} of them ties; interval by {by}"
    if rate.failures:
        note += f"; {rate.failures:,} by a failure to acquire"
    chance = f"guessing errs in {percent(rate.chance_error_rate)}"
    return [
        Result(where, rate.error_rate, *rate.interval, note, key=True),
        Result(
            f"{where}, interval by trial", rate.error_rate, *rate.trial_interval, "as if all were independent"
        ),
        Result(
            f"{where}, by pixels", pixels.error_rate, *pixels.interval, f"nearest pixels; {chance}", key=True
        ),
    ]


def _by_run(runs: Mapping[str, float]) -> dict[str, str]:
    return {name: percent(error) for name, error in runs.items()}


def _table(kind: Drawn, by: str) -> Table:
    shown = {*TABLE_WAYS, kind.curve[0].ways, kind.curve[-1].ways}
    rows = [
        [
            str(rate.ways),
            percent(rate.error_rate),
            interval(*rate.interval),
            percent(pixels.error_rate),
            interval(*pixels.interval),
            percent(rate.chance_error_rate),
        ]
        for rate, pixels in zip(kind.curve, kind.pixels, strict=True)
        if rate.ways in shown
    ]
    columns = ["N", "error", "95 % interval", "nearest pixels", "95 % interval", "guessing"]
    return Table(f"N-way error, {kind.title}; intervals by {by}", columns, rows)


def _curve(report: Report, kind: Drawn, by: str) -> None:
    last, pixels = kind.curve[-1], kind.pixels[-1]
    report.picture(
        oneshot_curve(
            np.array([rate.ways for rate in kind.curve]),
            {"model": _accuracy(kind.curve), "nearest pixels": _accuracy(kind.pixels)},
        ),
        f"N-way one-shot, {kind.title}",
        caption=f"{last.trials:,} trials with one image of each of N subjects; the nearest answers, and a "
        f"tie is an error. Fewer ways: the same trials with candidates left out. Bands: 95 % intervals "
        f"by {by}.",
        alternative=f"Of {last.ways} subjects the model finds the right one in "
        f"{percent(1.0 - last.error_rate)} of the trials, the nearest pixels in "
        f"{percent(1.0 - pixels.error_rate)}.",
        section="results",
        wide=len(report.tables) == 1,
    )


def _accuracy(curve: Sequence[OneShotRate]) -> Series:
    return Series(
        np.array([1.0 - rate.error_rate for rate in curve]),
        np.array([1.0 - rate.interval.upper95 for rate in curve]),
        np.array([1.0 - rate.interval.lower95 for rate in curve]),
    )


def _hardest(drawn: Sequence[Drawn], embedded: Embedded, folder: Path) -> Block:
    groups = []
    for kind in drawn:
        nearest_other = kind.distance[:, 1:].min(axis=1)
        usable = np.isfinite(kind.distance[:, 0]) & np.isfinite(nearest_other)
        trials = np.flatnonzero(usable)
        # Positive where another candidate is nearer than the right one.
        margin = kind.distance[trials, 0] - nearest_other[trials]
        order = trials[np.argsort(-margin, kind="stable")]
        comparisons = [_comparison(kind, int(trial), embedded, folder) for trial in _probe_once(order, kind)]
        groups.append(
            ShotGroup(
                _capital(kind.title),
                "The probe, its right candidate, and the nearest of the others, which is the answer where it "
                "is as near as the right one or nearer. No probe is shown twice.",
                comparisons,
            )
        )
    return Block(
        "trials",
        "Hardest trials",
        lead="Trials whose right candidate is farther than another one by most; then those that are right by "
        "least. A solid green frame is a right answer, a dashed red one a wrong one.",
        groups=groups,
    )


def _probe_once(order: NDArray[np.intp], kind: Drawn) -> list[int]:
    chosen: dict[int, int] = {}
    for trial in order.tolist():
        chosen.setdefault(int(kind.trials.probe[trial]), trial)
        if len(chosen) == SHOWN:
            break
    return list(chosen.values())


def _comparison(kind: Drawn, trial: int, embedded: Embedded, folder: Path) -> Comparison:
    distance, candidates = kind.distance[trial], kind.trials.candidates[trial]
    other = 1 + int(distance[1:].argmin())
    wrong = bool(is_error(distance[None])[0])
    rows = (int(kind.trials.probe[trial]), int(candidates[0]), int(candidates[other]))
    roles = ("probe", "right", "answer" if wrong else "next")
    tie = wrong and distance[other] == distance[0]
    return Comparison(
        [shot(embedded.paths[row], folder, role) for row, role in zip(rows, roles, strict=True)],
        f"right at {distance[0]:.4f}, {'other' if tie else roles[2]} at {distance[other]:.4f}"
        + (": a tie, wrong" if tie else ": wrong" if wrong else ": right"),
        right=not wrong,
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
