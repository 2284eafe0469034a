"""The page of a run with two different encoders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import font_manager
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from app.matching.distances import distances
from training.config import RunConfig
from training.data.samplers import Pairs
from training.data.two_kinds import TwoKinds
from training.pictures.distances import det_curve, distance_histogram, error_curve
from training.pictures.embeddings import embedding_maps
from training.pictures.pairs import pair_grid
from training.pictures.progress import loss_curves
from training.pictures.report import Command, DataSet, Part, Report, Result, Table
from training.pictures.style import percent
from training.train import Trained, as_columns

SHOWN_PAIRS = 12
"""Pairs in a grid."""

NAME_SIZE = (96, 28)
"""Width and height of a name as a picture; a digit is as high."""


@dataclass(frozen=True, eq=False)
class TwoTowerRun:
    """A finished run.

    Attributes:
        config: What was asked for.
        data: Pictures and names.
        trained: What the loop left.
        values: The figures by name, as JSON.
        pairs: Of test pictures (left) and names (right).
        distance: float64[B], theirs, of the exported encoders.
        shown: Rows of test pictures in the map of embeddings.
        before: Embeddings of those pictures and of all names, untrained.
        after: The same of the exported encoders.
        environment: Versions of what trained it.
    """

    config: RunConfig
    data: TwoKinds
    trained: Trained
    values: dict[str, Any]
    pairs: Pairs
    distance: NDArray[np.float64]
    shown: NDArray[np.intp]
    before: tuple[NDArray[np.float32], NDArray[np.float32]]
    after: tuple[NDArray[np.float32], NDArray[np.float32]]
    environment: Mapping[str, str]


def write_report(run: TwoTowerRun, out: Path) -> None:
    """Write ``report.html``.

    Args:
        run: What it shows.
        out: Folder of the run.
    """
    data, dataset = run.data, run.data.dataset
    languages = run.values["names"]["languages"]
    report = Report(
        title=run.config.name,
        subtitle=run.config.summary,
        results=_results(run),
        data=[
            DataSet(str(dataset["name"]), str(dataset["licence"]), "train, validation, test"),
            DataSet(
                f"digit names in {', '.join(languages)}",
                "part of Visavis",
                "train, validation, test",
                samples=len(data.names),
                subjects=10,
            ),
        ],
        parts=[
            Part(name, len(part.subjects), len(part))
            for name, part in (("train", data.train), ("validation", data.validation), ("test", data.test))
        ],
        split="by picture; the ten digits and their names are all there are",
        seed=run.config.seed,
        configuration=run.config.model_dump(mode="json", exclude={"name", "summary"}),
        environment=run.environment,
        training=_training(run),
        tables=[_by_name(run)],
        serving=[
            Command(
                "The service compares images with images. Beside this page, image_encoder.onnx takes images "
                "uint8[N, 28, 28, 1] and text_encoder.onnx letters of names; both give embeddings of one "
                "space:",
                "onnxruntime.InferenceSession('text_encoder.onnx').run(None, {'tokens': "
                f"encode_names(['seven'], {data.tokens.shape[1]})}})  # of training.data.names",
            )
        ],
        note="Rates are measured with the exported encoders on pictures that were not trained on; the names "
        "were, for they are all there are. Intervals are of 95 %, by resampling pictures.",
    )
    _pictures(run, report)
    report.write(out / "report.html")


def _results(run: TwoTowerRun) -> list[Result]:
    values = run.values
    pairs = values["pairs"]
    note = f"{pairs['mated'] + pairs['nonmated']:,} test pairs of a picture and a name, half of them mated"
    results = [
        Result(
            "Pair accuracy",
            pairs["accuracy"],
            pairs["accuracy_lower95"],
            pairs["accuracy_upper95"],
            f"{note}; threshold {pairs['threshold']:.4f}, chosen on pictures kept back",
            key=True,
        ),
        Result("EER", pairs["eer"], pairs["eer_lower95"], pairs["eer_upper95"], note, key=True),
        Result(
            "Nearest name right",
            values["naming_accuracy"],
            note=f"{len(run.data.test):,} test pictures, each among {len(run.data.names)} names",
            key=True,
        ),
    ]
    if "accuracy_at_fixed_threshold" in values:
        where = f"Pair accuracy at {run.config.fixed_threshold:g}"
        results.append(Result(where, values["accuracy_at_fixed_threshold"], note=f"{note}; fixed threshold"))
    return results


def _training(run: TwoTowerRun) -> dict[str, str]:
    parity = run.values["parity"]
    return {
        "time": f"{run.trained.seconds:.0f} s",
        "steps": f"{run.trained.step:,}",
        "weights kept": f"of step {run.trained.best_step:,}",
        "embedding": f"{run.after[0].shape[1]} numbers, {run.config.metric} distance",
        "Keras to ONNX, pictures": f"{parity['images']:.2g} at most",
        "Keras to ONNX, names": f"{parity['names']:.2g} at most",
    }


def _by_name(run: TwoTowerRun) -> Table:
    """Return what goes wrong with each digit's names."""
    threshold = run.values["pairs"]["threshold"]
    wrong = (run.distance <= threshold) != run.pairs.same
    rows = []
    for digit in range(10):
        of_digit = run.data.meaning[run.pairs.right] == digit
        names = [name for name, means in zip(run.data.names, run.data.meaning, strict=True) if means == digit]
        rates = [
            percent(float(wrong[of_digit & kind].mean())) if (of_digit & kind).any() else "-"
            for kind in (run.pairs.same, ~run.pairs.same)
        ]
        rows.append([str(digit), ", ".join(names), *rates])
    return Table("By the name's digit", ["digit", "names", "mated missed", "non-mated accepted"], rows)


def _grid(run: TwoTowerRun, report: Report, *, worst: bool) -> None:
    """Show pairs: the worst ones, or the first of the test."""
    threshold, same = run.values["pairs"]["threshold"], run.pairs.same
    surplus = np.where(same, 1.0, -1.0) * (run.distance - threshold)
    chosen = (np.argsort(-surplus, kind="stable") if worst else np.arange(same.size))[:SHOWN_PAIRS]
    names = [run.data.names[name] for name in run.pairs.right[chosen]]
    digits = run.data.test.labels[run.pairs.left[chosen]].tolist()
    report.picture(
        pair_grid(
            [run.data.test.images[picture] for picture in run.pairs.left[chosen]],
            [_drawn(name) for name in names],
            run.distance[chosen],
            same[chosen],
            threshold=threshold,
            columns=3,
        ),
        "Worst pairs" if worst else "Some test pairs",
        caption=f"{'The farthest on the wrong side' if worst else 'Decided at'} "
        f"{'of ' if worst else ''}the threshold, {threshold:.4f}. A solid green frame is a right decision, a "
        "dashed red one a wrong one.",
        alternative="; ".join(
            f"{digit} and {name} at {apart:.2f}"
            for digit, name, apart in zip(digits, names, run.distance[chosen], strict=True)
        ),
        section="worst" if worst else "results",
    )


def _drawn(name: str) -> NDArray[np.uint8]:
    """Return a name as a picture, uint8[28, 96], white on black as the digits are."""
    image = Image.new("L", NAME_SIZE, 0)
    font = ImageFont.truetype(font_manager.findfont("DejaVu Sans"), 17)
    middle = (NAME_SIZE[0] / 2, NAME_SIZE[1] / 2)
    ImageDraw.Draw(image).text(middle, name, fill=255, font=font, anchor="mm")
    return np.asarray(image, np.uint8)


def _pictures(run: TwoTowerRun, report: Report) -> None:
    same = run.pairs.same
    mated, nonmated = run.distance[same], run.distance[~same]
    threshold = run.values["pairs"]["threshold"]
    _grid(run, report, worst=False)
    _grid(run, report, worst=True)
    report.picture(
        distance_histogram(mated, nonmated, thresholds={"best in validation": threshold}),
        "Distances between pictures and names",
        caption="A pair left of the threshold is taken for the same digit.",
        alternative=f"Histogram: mated pairs have a median distance of {np.median(mated):.3f}, non-mated "
        f"ones of {np.median(nonmated):.3f}.",
        section="results",
    )
    curve = error_curve(mated, nonmated)
    report.picture(
        det_curve({run.config.name: curve}),
        "Detection error trade-off",
        caption="Mated pairs missed against non-mated pairs accepted, at every threshold.",
        alternative=f"The EER is {percent(curve.eer)}.",
        section="results",
    )
    digits = run.data.test.labels[run.shown]
    report.picture(
        embedding_maps(
            np.concatenate(run.before),
            np.concatenate(run.after),
            np.concatenate([digits, run.data.meaning]),
            [str(digit) for digit in range(10)],
        ),
        "Pictures and names in one space",
        caption=f"{len(digits)} test pictures and all {len(run.data.names)} names, coloured by digit. Before "
        "training the two encoders know nothing of one another.",
        alternative=f"After training, names lie {_median_to_own(run):.3f} from the pictures of their digit "
        "in the median.",
        section="embeddings",
    )
    report.picture(
        loss_curves(as_columns(run.trained.history), validation=("eer",)),
        "The run",
        caption="Loss of the training batches and EER on the validation part after each epoch.",
        alternative=f"The validation EER ends at {run.trained.history[-1]['eer']:.4f}; the weights of step "
        f"{run.trained.best_step} were kept.",
        section="training",
    )


def _median_to_own(run: TwoTowerRun) -> float:
    images, names = run.after
    pictures, spelled = np.nonzero(run.data.test.labels[run.shown][:, None] == run.data.meaning[None, :])
    return float(np.median(distances(images[pictures], names[spelled], run.config.metric)))
