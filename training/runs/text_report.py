"""The page of a run on texts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.pictures.distances import det_curve, distance_histogram, error_curve
from training.pictures.embeddings import embedding_maps
from training.pictures.progress import loss_curves
from training.pictures.report import Command, DataSet, Part, Report, Result, Table
from training.pictures.style import percent
from training.runs.text_run import TextRun
from training.train import as_columns

EXAMPLES = 8
"""Pairs in a table of examples."""


def write_report(run: TextRun, out: Path) -> None:
    """Write ``report.html``.

    Args:
        run: What it shows.
        out: Folder of the run.
    """
    dataset = run.parts.dataset
    report = Report(
        title=run.config.name,
        subtitle=run.config.summary,
        results=list(_results(run)),
        data=[
            DataSet(
                str(dataset["name"]),
                str(dataset["licence"]),
                "train, validation, test",
                source=str(dataset["source"]),
            )
        ],
        parts=[
            Part(name, len({*part.left, *part.right}), len(part))
            for name, part in (
                ("train", run.parts.train),
                ("validation", run.parts.validation),
                ("test", run.parts.test),
            )
        ],
        split=f"by pair, subjects are texts; {run.parts.left_out} pairs that another part has too were left "
        "out of training",
        seed=run.config.seed,
        configuration=run.config.model_dump(mode="json", exclude={"name", "summary"}),
        environment=run.environment,
        training=_training(run),
        tables=[_baselines(run), _surest(run), _shown(run)],
        worst=_worst(run),
        serving=[
            Command(
                "The service takes images. encoder.onnx and vocabulary.json beside this page embed texts "
                "anywhere:",
                "session = onnxruntime.InferenceSession('encoder.onnx')\n"
                "vocabulary = Vocabulary.from_json(Path('vocabulary.json').read_text())  "
                "# of training.data.text\n"
                f"session.run(None, {{'tokens': vocabulary.encode(texts, {_length(run)})}})",
            )
        ],
        note="Rates are measured with the exported encoder on the test part, thresholds are chosen on the "
        "validation part. The baseline is the TF-IDF that is best on the test part. Intervals are of 95 %, "
        "by resampling sets of pairs that share texts.",
    )
    _pictures(run, report)
    report.write(out / "report.html")


def _length(run: TextRun) -> int:
    length: int = run.config.data.length  # type: ignore[union-attr]
    return length


def _results(run: TextRun) -> Iterator[Result]:
    values = run.measured.values
    yield from _figures("", values["encoder"], key=True)
    baseline = values["baseline"]
    yield from _figures(f"TF-IDF of {baseline['unit']}: ", baseline, key=True)
    ends = (values["eer_less_baseline_lower95"], values["eer_less_baseline_upper95"])
    yield Result(
        "EER less that of TF-IDF",
        f"{values['eer_less_baseline'] * 100:+.2f} points",
        note=f"95 % of the resamples lie between {ends[0] * 100:+.2f} and {ends[1] * 100:+.2f} points",
    )
    if "head" in values:
        yield from _figures("Head: ", values["head"], key=False)
    for name, who in (("encoder", ""), ("baseline", "TF-IDF, ")):
        if "unseen_texts" in values:
            yield from _figures(f"{who}neither text trained on: ", values["unseen_texts"][name], key=False)


def _figures(prefix: str, figures: dict[str, Any], *, key: bool) -> Iterator[Result]:
    note = f"{figures['mated']:,} mated and {figures['nonmated']:,} non-mated test pairs"
    for name, words in (("accuracy", "accuracy"), ("eer", "EER")):
        shown = f"{prefix}{words}"
        yield Result(
            shown[0].upper() + shown[1:],
            figures[name],
            figures[f"{name}_lower95"],
            figures[f"{name}_upper95"],
            note + (f"; threshold {figures['threshold']:.4f}" if name == "accuracy" else ""),
            key=key,
        )


def _training(run: TextRun) -> dict[str, str]:
    parity, inputs = run.parity
    return {
        "time": f"{run.trained.seconds:.0f} s",
        "steps": f"{run.trained.step:,}",
        "weights kept": f"of step {run.trained.best_step:,}",
        "vocabulary": f"{len(run.vocabulary):,} tokens ({run.vocabulary.unit})",
        "embedding": f"{run.after.shape[1]} numbers, {run.config.metric} distance",
        "Keras to ONNX": f"{parity:.2g} at most, on {inputs} texts",
    }


def _baselines(run: TextRun) -> Table:
    values = run.measured.values
    rows = [
        [
            f"TF-IDF of {unit}" + (" (the baseline)" if unit == values["baseline"]["unit"] else ""),
            percent(figures["validation_eer"]),
            percent(figures["eer"]),
            percent(figures["accuracy"]),
        ]
        for unit, figures in values["baselines"].items()
    ]
    own = values["encoder"]
    own_row = [
        run.config.name,
        percent(own["validation_eer"]),
        percent(own["eer"]),
        percent(own["accuracy"]),
    ]
    return Table("Beside TF-IDF", ["", "EER, validation", "EER, test", "accuracy, test"], [own_row, *rows])


def _surplus(run: TextRun) -> NDArray[np.float64]:
    """Return float64[N], how far on the wrong side of the threshold each test pair lies."""
    return np.where(run.parts.test.same, 1.0, -1.0) * (run.measured.distance - run.measured.threshold)


def _worst(run: TextRun) -> Table:
    chosen = np.argsort(-_surplus(run), kind="stable")[: 2 * EXAMPLES]
    return _examples(run, "Test pairs farthest on the wrong side of the threshold", chosen)


def _surest(run: TextRun) -> Table:
    test = run.parts.test
    order = np.argsort(_surplus(run), kind="stable")
    # Two equal texts are at distance 0, which says nothing of the encoder.
    differ = np.array([test.left[row] != test.right[row] for row in order])
    chosen = [order[(test.same[order] == kind) & differ][:EXAMPLES] for kind in (True, False)]
    return _examples(run, "Test pairs farthest on the right side of the threshold", np.concatenate(chosen))


def _examples(run: TextRun, caption: str, rows: NDArray[np.intp]) -> Table:
    test, measured = run.parts.test, run.measured
    return Table(
        f"{caption}, {measured.threshold:.4f}",
        ["text", "compared with", "distance", "truth"],
        [
            [
                test.left[row],
                test.right[row],
                f"{measured.distance[row]:.4f}",
                "same" if test.same[row] else "different",
            ]
            for row in rows
        ],
    )


def _shown(run: TextRun) -> Table:
    test = run.parts.test
    rows = [
        [f"pair {number}", test.left[row], test.right[row]] for number, row in enumerate(run.shown, start=1)
    ]
    return Table("Mated pairs in the picture of embeddings", ["", "text", "compared with"], rows)


def _pictures(run: TextRun, report: Report) -> None:
    same, measured = run.parts.test.same, run.measured
    mated, nonmated = measured.distance[same], measured.distance[~same]
    report.picture(
        distance_histogram(mated, nonmated, thresholds={"best in validation": measured.threshold}),
        "Distances of the test pairs",
        caption="The less the two overlap, the better. A pair left of the threshold is taken for the same.",
        alternative=f"Histogram: mated pairs have a median distance of {np.median(mated):.3f}, non-mated "
        f"ones of {np.median(nonmated):.3f}.",
        section="results",
    )
    base = f"TF-IDF of {measured.values['baseline']['unit']}"
    curves = {
        run.config.name: error_curve(mated, nonmated),
        base: error_curve(measured.baseline[same], measured.baseline[~same]),
    }
    report.picture(
        det_curve(curves),
        "Detection error trade-off",
        caption="Lower is better: fewer mated pairs missed at the same share of non-mated pairs accepted.",
        alternative="; ".join(f"EER of {name} {percent(curve.eer)}" for name, curve in curves.items()) + ".",
        section="results",
    )
    pairs = len(run.shown)
    names = [f"pair {number}" for number in range(1, pairs + 1)]
    report.picture(
        embedding_maps(run.before, run.after, np.tile(np.arange(pairs), 2), names),
        f"Both texts of {pairs} mated test pairs",
        caption="The two dots of a colour mean the same and should lie together. Two dimensions of many: "
        "a pair that lies apart here may be near in others.",
        alternative=f"Dots of {pairs} pairs of texts in the plane, before and after training.",
        section="embeddings",
    )
    report.picture(
        loss_curves(as_columns(run.trained.history), validation=("eer",)),
        "The run",
        caption="Loss of the training batches and EER on the validation part after each epoch.",
        alternative=f"The validation EER ends at {run.trained.history[-1]['eer']:.3f}; the weights of step "
        f"{run.trained.best_step} were kept.",
        section="training",
    )
