"""How much of a training step's speed the input pipeline and the loop leave, and what plain Keras does.

    python -m benchmarks.train [--rounds 15] [--seconds 1] [--recipe NAME ...]

For each recipe, one after the other in every round so that a noisy machine troubles all alike: steps of the
training loop fed by the recipe's own pipeline (sampling, gathering, augmentation), and the same steps on one
batch that lies in memory. Then, each in a process of its own, an epoch of ``digits-contrastive`` in the loop
and in ``fit`` of a plain Keras model of the same layers on arrays of the same 120,000 pairs, as the texts
have it. Images are noise in the shapes and numbers of the real sets. Printed are medians of the ratios.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import keras
import numpy as np
import tensorflow as tf

from app.encoding.manifest import InputSpec, WholeImage
from training.config import RunConfig, load_recipe
from training.data.labelled import LabelledImages
from training.data.parts import ImageParts, Part
from training.data.samplers import balanced_pairs
from training.distribute import Distribution
from training.losses.contrastive import ContrastiveLoss
from training.losses.masks import euclidean
from training.optimisers import build_optimiser
from training.runs.images import batches, build_learner
from training.train import compiled_steps

SIZES = {"digits-contrastive": (10, 6000), "omniglot": (3856, 20), "omniglot-koch": (964, 20)}
"""Subjects, and images of each, of the real sets: digits, turned characters, characters."""

CHANGES: dict[str, dict[str, Any]] = {"omniglot-koch": {"batches.subjects": 4}}
PAIRS = 120_000


def noise(config: RunConfig) -> ImageParts:
    """Return parts of noise in the real set's shape and size."""
    subjects, each = SIZES[config.name]
    data = config.data
    size = getattr(data, "input", InputSpec(height=28, width=28, channels=1))
    shape = (subjects * each, size.height, size.width, size.channels)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    labels = np.repeat(np.arange(subjects, dtype=np.int32), each)
    part = Part(LabelledImages(images, labels, tuple(map(str, range(subjects)))))
    return ImageParts(
        input=size,
        preprocess=WholeImage(mode="pad"),
        train=part,
        validation=None,
        calibration=part,
        test=part,
        closed=True,
        split=None,
        datasets=(),
        calibrated_on="",
    )


Loop = Callable[[int], tuple[float, float]]
"""Run so many steps; return steps a second, and steps a second of processor time of this process."""


def timed(work: Callable[[], object], count: int) -> tuple[float, float]:
    """Return the rates of work that is so many steps."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return count / (time.perf_counter() - wall), count / (time.process_time() - processor)


def loops(config: RunConfig, parts: ImageParts) -> dict[str, Loop]:
    """Return the training loop on the recipe's pipeline, and on one batch in memory."""
    learner = build_learner(config, parts)
    optimiser = build_optimiser(config.optimiser, config.loop)
    optimiser.build(learner.trainable_variables)
    steps = compiled_steps(learner, optimiser, Distribution())
    pipeline = batches(config, parts, 0)
    fixed = tf.data.Dataset.from_tensors(next(iter(pipeline))).repeat()

    def loop(data: tf.data.Dataset) -> Loop:
        iterator = iter(data)

        return lambda count: timed(lambda: float(steps(iterator, tf.constant(count))["loss"]), count)

    return {"pipeline": loop(pipeline), "memory": loop(fixed)}


LEAST_STEPS = 16
"""Of a measurement: the pipeline holds four batches ready, which the other's turn has paid for."""


def steps_in(run: Loop, seconds: float) -> int:
    """Return how many steps fill about so many seconds."""
    run(2)
    return max(LEAST_STEPS, int(run(max(2, int(run(2)[0])))[0] * seconds))


def against_memory(name: str, rounds: int, seconds: float) -> dict[str, Any]:
    """Measure a recipe's pipeline against a batch in memory."""
    config = load_recipe(name, changes=CHANGES.get(name))
    both = loops(config, noise(config))
    count = steps_in(both["memory"], seconds)
    both["pipeline"](count)
    rows = [{which: run(count) for which, run in both.items()} for _ in range(rounds)]
    wall, processor = ([row["pipeline"][i] / row["memory"][i] for row in rows] for i in (0, 1))
    return {
        "ratio": middle(wall),
        "ratios": [round(ratio, 3) for ratio in wall],
        "processor_ratio": middle(processor),
        "processor_ratios": [round(ratio, 3) for ratio in processor],
        "steps_per_second": {which: middle([row[which][0] for row in rows]) for which in both},
    }


def middle(values: list[float]) -> float:
    """Return the median, rounded."""
    return round(statistics.median(values), 3)


def plain_fit(config: RunConfig, parts: ImageParts) -> Loop:
    """Return an epoch of ``fit`` of a plain Keras twin on arrays of pairs, as the texts have it."""
    data = parts.train.images
    pairs = balanced_pairs(data.labels, PAIRS // 2, PAIRS // 2, config.seed)
    pixels = data.images.astype(np.float32) / 255.0
    left, right = pixels[pairs.left], pixels[pairs.right]
    del pixels
    layers = [keras.layers.Flatten()]
    layers += [keras.layers.Dense(units, activation="relu") for units in (512, 256, 128)]
    twin = keras.Sequential(layers)
    inputs = [keras.Input((28, 28, 1)), keras.Input((28, 28, 1))]
    apart = keras.layers.Lambda(lambda sides: euclidean(*sides), output_shape=())
    model = keras.Model(inputs, apart([twin(side) for side in inputs]))
    model.compile(optimizer=keras.optimizers.Adam(1e-3), loss=ContrastiveLoss(1.0))

    def run(count: int) -> tuple[float, float]:
        rows = slice(0, count * 32)
        sides = [left[rows], right[rows]]
        return timed(lambda: model.fit(sides, pairs.same[rows], batch_size=32, verbose=0), count)

    return run


def child(which: str) -> None:
    """Serve measurements to the parent: a number of steps a line in, JSON a line out."""
    config = load_recipe("digits-contrastive")
    parts = noise(config)
    run = plain_fit(config, parts) if which == "fit" else loops(config, parts)["pipeline"]
    for line in sys.stdin:
        rate, per_processor_second = run(int(line))
        # Not ru_maxrss: that of a child begins with its parent's.
        status = Path("/proc/self/status").read_text(encoding="ascii")
        peak = int(status.split("VmHWM:")[1].split()[0]) / 1024
        sys.stdout.write(
            json.dumps({"rate": rate, "processor": per_processor_second, "peak_mib": peak}) + "\n"
        )
        sys.stdout.flush()


def against_fit(rounds: int, steps: int) -> dict[str, Any]:
    """Measure the loop against ``fit``, in processes of their own that take turns."""
    command = [sys.executable, "-m", "benchmarks.train", "--child"]
    running = {
        which: subprocess.Popen(
            [*command, which],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[1],
        )
        for which in ("loop", "fit")
    }

    def ask(which: str, count: int) -> dict[str, float]:
        process = running[which]
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{count}\n")
        process.stdin.flush()
        answer: dict[str, float] = json.loads(process.stdout.readline())
        return answer

    try:
        for which in running:
            ask(which, 100)
        rows = [{which: ask(which, steps) for which in running} for _ in range(rounds)]
    finally:
        for process in running.values():
            process.kill()
            process.wait()
    return {
        "ratio": middle([row["loop"]["rate"] / row["fit"]["rate"] for row in rows]),
        "ratios": [round(row["loop"]["rate"] / row["fit"]["rate"], 2) for row in rows],
        "processor_ratio": middle([row["loop"]["processor"] / row["fit"]["processor"] for row in rows]),
        "steps_per_second": {which: middle([row[which]["rate"] for row in rows]) for which in running},
        "peak_mib": {which: round(rows[-1][which]["peak_mib"]) for which in running},
    }


@click.command(help=__doc__)
@click.option("--rounds", default=15, show_default=True)
@click.option("--seconds", default=1.0, show_default=True, help="of each measurement in a round")
@click.option("--recipe", "recipes", multiple=True, default=tuple(SIZES), help="against a batch in memory")
@click.option(
    "--steps", default=PAIRS // 32, show_default=True, help="of an epoch against fit; 0 leaves it out"
)
@click.option("--child", "which", type=click.Choice(["loop", "fit"]), hidden=True)
def main(rounds: int, seconds: float, recipes: tuple[str, ...], steps: int, which: str | None) -> None:
    """Run the benchmark and print its figures as JSON."""
    if which is not None:
        child(which)
        return
    report: dict[str, Any] = {"rounds": rounds}
    report["pipeline / memory"] = {name: against_memory(name, rounds, seconds) for name in recipes}
    if steps:
        report["loop / fit"] = against_fit(rounds, steps)
    click.echo(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
