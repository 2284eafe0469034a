"""One process of a distributed run, for ``test_distribute``; prints what it ended with as JSON."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import click
import tensorflow as tf

from training.config import load_recipe
from training.data.parts import load_image_parts
from training.distribute import Distribution, from_environment
from training.runs.images import batches, build_learner
from training.train import RunStoppedError, train


@click.command()
@click.argument("recipe")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--devices", default=1)
@click.option("--steps", default=50)
@click.option("--stop-worker", default=-1)
@click.option("--stop-after", default=0)
@click.option("--own-folders", is_flag=True)
def main(
    recipe: str,
    folder: Path,
    devices: int,
    steps: int,
    stop_worker: int,
    stop_after: int,
    own_folders: bool,
) -> None:
    """Train the smoke variant of a recipe for some steps."""
    if devices > 1:
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * devices)
        names = [f"CPU:{number}" for number in range(devices)]
        shared = Distribution(tf.distribute.MirroredStrategy(names))
    else:
        shared = from_environment()
    config = load_recipe(recipe, smoke=True, changes={"loop.steps": steps, "loop.epoch": 25})
    if recipe == "digits":
        small = {"encoder.stem": 4, "encoder.widths": [8], "encoder.blocks": [1], "encoder.dimensions": 8}
        changes = {"loop.steps": steps, "loop.epoch": 25, "optimiser.clip_norm": 1.0, **small}
        config = load_recipe(recipe, smoke=True, changes=changes)
    parts = load_image_parts(config, Path("no data is needed"))
    learner = build_learner(config, parts)
    done = 0

    def progress(count: int) -> None:
        nonlocal done
        if done == 0 and count:
            print("training", flush=True)
        before, done = done, done + count
        if shared.worker == stop_worker and before < stop_after <= done:
            os.kill(os.getpid(), signal.SIGTERM)

    try:
        trained = train(
            learner,
            lambda step: shared.dataset(batches(config, parts, step, shared.share)),
            config,
            folder / str(shared.worker) if own_folders else folder,
            progress=progress,
            distribution=shared,
        )
    except RunStoppedError as stopped:
        print(json.dumps({"stopped": stopped.step}))
        return
    share = shared.share
    told = {
        "share": [share.first, share.here, share.total],
        "losses": [row["loss"] for row in trained.history],
        "weights": [float(abs(weight.numpy()).sum()) for weight in learner.trainable_variables],
        "states": [float(abs(value.numpy()).sum()) for value in learner.left.non_trainable_variables],
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
