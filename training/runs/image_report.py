"""The page of a run on images, and its pictures as files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from training.evaluation.intervals import wilson_interval
from training.pictures.report import Command, DataSet, OperatingPoint, Part, Report, Result, Table
from training.pictures.style import PNG_DPI, percent
from training.runs.image_pictures import all_pictures, one_shot_places, surplus, worst_trials, write_plot
from training.runs.image_run import REPORT, ImageRun, published

WORST = 10
"""Trials in the table of the worst."""

TABLE_WAYS = (2, 5, 10, 15, 20)


def write_report(run: ImageRun, out: Path) -> None:
    """Write ``report.html`` and ``plots/*.png``.

    Args:
        run: What they show.
        out: Folder of the run.
    """
    report = Report(
        title=run.config.name,
        subtitle=run.config.summary,
        results=list(_results(run)),
        points=_points(run),
        data=_data(run),
        parts=_parts(run),
        split="by image, for the subjects are all there are"
        if run.parts.closed
        else "by subject: each is in one part only",
        seed=run.config.seed,
        configuration=_configuration(run),
        environment=run.environment,
        training=_training(run),
        tables=list(_one_shot_tables(run)),
        worst=_worst(run),
        serving=_serving(run),
        note=_note(run),
    )
    plots = out / "plots"
    plots.mkdir(exist_ok=True)
    for picture in all_pictures(run):
        report.picture(
            picture.figure,
            picture.title,
            caption=picture.caption,
            alternative=picture.alternative,
            section=picture.section,
            wide=picture.wide,
        )
        write_plot(picture, plots, dpi=PNG_DPI)
    report.write(out / REPORT)


def _results(run: ImageRun) -> Iterator[Result]:
    values = run.measured.values
    if "official_runs" in values:
        rate = values["official_runs"]
        note = f"{rate['errors']} errors in {rate['trials']} trials; interval by run"
        yield _one_shot_result("Error on Omniglot's official 20 runs", rate, note, key=True)
    for place, curves in one_shot_places(run).items():
        rate, pixels = curves["model"][-1], curves["pixels"][-1]
        note = f"{rate['trials']:,} trials; nearest pixels {percent(pixels['error_rate'])}"
        yield _one_shot_result(f"{rate['ways']}-way one-shot error, {place}", rate, note, key=True)
    if "pairs" in values:
        yield from _pair_results(values["pairs"])
    if "knn" in values:
        count = len(run.measured.embeddings)
        for name, k in (("accuracy_k5", 5), ("accuracy_k1", 1)):
            ends = wilson_interval(values["knn"][name], count)
            note = f"{count:,} test images among training images; interval by image"
            yield Result(f"kNN accuracy, k = {k}", values["knn"][name], *ends, note, key=k == 5)
    yield from _verification_results(values["verification"])
    if "before" in values:
        yield from _before(values["before"]["verification"])


def _one_shot_result(name: str, rate: dict[str, Any], note: str, *, key: bool) -> Result:
    ends = (rate["error_rate_lower95"], rate["error_rate_upper95"])
    return Result(name, rate["error_rate"], *ends, note, key=key)


def _pair_results(pairs: dict[str, Any]) -> Iterator[Result]:
    for name, threshold, where in (
        ("accuracy_at_fixed_threshold", "fixed_threshold", "fixed by the recipe"),
        ("accuracy", "threshold_of_held_out", "chosen on images kept back"),
    ):
        if name in pairs:
            note = f"{pairs['trials']:,} test pairs, half of them mated; threshold {where}; interval by pair"
            ends = wilson_interval(pairs[name], pairs["trials"])
            yield Result(f"Pair accuracy at {pairs[threshold]:.3g}", pairs[name], *ends, note, key=True)


def _verification_results(rates: dict[str, Any]) -> Iterator[Result]:
    trials = rates["trials"]
    note = (
        f"{trials['mated']:,} mated and {trials['nonmated']:,} non-mated trials of {rates['subjects']:,} "
        "subjects"
    )
    yield Result("EER", rates["eer"], rates["eer_lower95"], rates["eer_upper95"], note, key=True)
    for target, at in rates["fnmr_at_fmr"].items():
        name = f"FNMR at FMR {percent(float(target))}"
        if at["supported"]:
            ends = (at["fnmr_lower95"], at["fnmr_upper95"])
            yield Result(name, at["fnmr"], *ends, "the same trials; threshold chosen on them")
        else:
            yield Result(name, "-", note=at["reason"])
    at = rates["at_default_threshold"]
    for kind in ("fmr", "fnmr"):
        ends = (at[f"{kind}_lower95"], at[f"{kind}_upper95"])
        yield Result(f"{kind.upper()} at the default threshold", at[kind], *ends, "the same trials")
    folds = rates["accuracy"]
    note = f"threshold of each fold from the others; standard deviation {percent(folds['std'])}"
    yield Result(f"Accuracy, mean of {folds['folds']} folds", folds["mean"], note=note)


def _before(rates: dict[str, Any]) -> Iterator[Result]:
    """Return the same rates of the encoder that the run started from."""
    note = "the same trials, with the encoder that the run started from"
    ends = (rates["eer_lower95"], rates["eer_upper95"])
    yield Result("EER before training", rates["eer"], *ends, note)
    for target, at in rates["fnmr_at_fmr"].items():
        if at["supported"]:
            ends = (at["fnmr_lower95"], at["fnmr_upper95"])
            yield Result(f"FNMR at FMR {percent(float(target))} before training", at["fnmr"], *ends, note)


def _points(run: ImageRun) -> list[OperatingPoint]:
    return [
        OperatingPoint(
            point.name or "",
            point.threshold,
            "" if point.max_fmr is None else f"FMR at most {percent(point.max_fmr)}",
            point.fmr or 0.0,
            point.fmr_upper95,
            point.fnmr,
            default=point == run.default,
        )
        for point in run.points
    ]


def _configuration(run: ImageRun) -> dict[str, Any]:
    return {name: value for name, value in published(run.config).items() if name not in {"name", "summary"}}


def _data(run: ImageRun) -> list[DataSet]:
    return [
        DataSet(
            str(item["name"]),
            str(item["licence"]),
            str(item.get("role", "trained on")),
            source=str(item.get("source", "")),
        )
        for item in run.parts.datasets
    ]


def _parts(run: ImageRun) -> list[Part]:
    parts = run.parts
    named = {"train": parts.train, "validation": parts.validation}
    if parts.calibration is parts.test or parts.closed:
        named["calibration and test"] = parts.test
    else:
        named |= {"calibration": parts.calibration, "test": parts.test}
    return [
        Part(name, len(part.images.subjects), len(part.images))
        for name, part in named.items()
        if part is not None
    ]


def _training(run: ImageRun) -> dict[str, str]:
    steps, seconds = (float(run.log[name][-1]) for name in ("step", "seconds"))
    size = run.parts.input
    parity = run.parity
    return {
        "training time": _duration(seconds),
        "steps": f"{steps:,.0f}",
        "steps a second, with validation": f"{steps / max(seconds, 1e-9):.1f}",
        "weights kept": f"of step {run.best_step:,}",
        "input": f"{size.height} x {size.width} x {size.channels}",
        "embedding": f"{run.measured.embeddings.shape[1]} numbers, {run.config.metric} distance",
        "encoder.onnx": f"{(run.bundle / 'encoder.onnx').stat().st_size / 1e6:.2f} MB",
        "Keras to ONNX, largest difference": f"{parity['largest_difference']:.1e}",
        "inputs compared for it": f"{parity['inputs']}",
    }


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _one_shot_tables(run: ImageRun) -> Iterator[Table]:
    for place, curves in one_shot_places(run).items():
        rows = [
            [
                f"{model['ways']}",
                *_with_interval(model),
                *_with_interval(pixels),
                percent(model["chance_error_rate"]),
            ]
            for model, pixels in zip(curves["model"], curves["pixels"], strict=True)
            if model["ways"] in {*TABLE_WAYS, curves["model"][-1]["ways"]}
        ]
        yield Table(
            f"N-way one-shot error, {place}: {curves['model'][-1]['trials']:,} trials",
            ["N", "model", "95 % interval", "nearest pixels", "95 % interval", "chance"],
            rows,
        )


def _with_interval(rate: dict[str, Any]) -> tuple[str, str]:
    ends = f"{percent(rate['error_rate_lower95'])} to {percent(rate['error_rate_upper95'])}"
    return percent(rate["error_rate"]), ends


def _worst(run: ImageRun) -> Table:
    trials, pairs, test = run.measured.trials, run.measured.pairs, run.parts.test.images
    off = surplus(run)

    def row(trial: int) -> list[str]:
        first, second = (test.subjects[test.labels[side[trial]]] for side in (pairs.left, pairs.right))
        match = trials.distance[trial] <= run.default.threshold
        decided = "match" if match else "non-match"
        verdict = "right" if match == trials.mated[trial] else "wrong"
        numbers = (f"{trials.distance[trial]:.4f}", f"{off[trial]:+.4f}")
        return [first, second, *numbers, f"{decided}: {verdict}"]

    return Table(
        f"Farthest on the wrong side of the default threshold {run.default.threshold:.4f}",
        ["subject", "compared with", "distance", "on the wrong side by", "decision"],
        [row(trial) for trial in worst_trials(run, WORST)],
    )


def _serving(run: ImageRun) -> list[Command]:
    name, home = run.config.name, "http://127.0.0.1:8000"
    asked = f" -F max_fmr={run.default.max_fmr:g}" if run.default.max_fmr else ""
    return [
        Command(
            "Serve the model, from the folder of this page:",
            f"VISAVIS_MODELS_DIR=models VISAVIS_MODELS={name} visavis serve",
        ),
        Command(
            "Enrol one image of a subject:",
            f"curl -F identity=first -F image=@first.png {home}/enroll",
        ),
        Command(
            "Whom or what does another image show?", f"curl -F image=@other.png -F top_k=3 {home}/identify"
        ),
        Command(
            "Are two images of the same subject, at an error rate that you choose?",
            f"curl -F image_a=@first.png -F image_b=@other.png{asked} {home}/verify",
        ),
        Command("Draw this page anew:", "visavis plot ."),
    ]


def _note(run: ImageRun) -> str:
    unseen = (
        "on images that were not trained on; their subjects were, for they are all there are"
        if run.parts.closed
        else "on subjects that were not trained on"
    )
    return (
        f"Rates are measured with the exported encoder {unseen}. Intervals are of 95 %, by resampling "
        "subjects where the table says nothing else."
    )
