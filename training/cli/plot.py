"""``visavis plot``: draw the report of a finished run anew."""

from __future__ import annotations

from pathlib import Path

import click

from app.errors import InvalidRequestError
from app.settings import load_settings
from training.cli.train import need_training_extra
from training.config import DigitNamesData, TextPairsData


@click.command()
@click.argument("run", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Where public sets lie.  [default: VISAVIS_DATA]",
)
def plot(run: Path, data: Path | None) -> None:
    """Draw the report and the plots of the finished RUN anew, without training.

    RUN is the folder that 'visavis train' wrote. The images are read again, so the data must be where they
    were. The bundle is left as it is.
    """
    need_training_extra()
    # They import Matplotlib, which comes with TensorFlow in the extra.
    from training.runs.image_report import write_report  # noqa: PLC0415
    from training.runs.image_run import read_config, read_run  # noqa: PLC0415

    config = read_config(run)
    if isinstance(config.data, TextPairsData | DigitNamesData):
        problem = f"{config.name} is no run on images; 'visavis train' draws its report"
        raise InvalidRequestError([{"field": "run", "problem": problem}])
    finished = read_run(run, data or load_settings().data)
    write_report(finished, run)
    click.echo(finished.finished(run).headline)
    click.echo(f"report  {run / 'report.html'}")
    click.echo(f"plots   {run / 'plots'}")
