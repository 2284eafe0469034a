"""Any recipe to its report: which kind of run its data ask for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from training.config import DigitNamesData, RunConfig, TextPairsData
from training.runs.finished import Finished


def run(
    config: RunConfig, data_dir: Path, out: Path, *, progress: Callable[[int], None] = lambda _: None
) -> Finished:
    """Train, export, measure and report.

    Args:
        config: Of the run.
        data_dir: Where public sets lie.
        out: Folder of the run; one that holds a checkpoint of the same configuration is gone on with.
        progress: Called with the number of steps done.

    Raises:
        VisavisError: The data cannot be used, the run is dead, or the export differs; the message says what
            to do.
        RunStoppedError: Interrupted; the same call goes on.
        WorkerDoneError: This is a worker other than the chief, and training is over.
    """
    # Workers connect before anything else of TensorFlow; and each kind imports what the others do not need.
    from training.distribute import from_environment  # noqa: PLC0415

    distribution = from_environment()
    if isinstance(config.data, TextPairsData | DigitNamesData):
        distribution.require_one_worker("only recipes of images are trained by several")
    if isinstance(config.data, TextPairsData):
        from training.runs.texts import run_texts  # noqa: PLC0415

        return run_texts(config, data_dir, out, progress=progress)
    if isinstance(config.data, DigitNamesData):
        from training.runs.two_towers import run_two_towers  # noqa: PLC0415

        return run_two_towers(config, data_dir, out, progress=progress)
    from training.runs.images import run_images  # noqa: PLC0415

    return run_images(config, data_dir, out, progress=progress, distribution=distribution).finished(out)
