"""``visavis tune``: search for a recipe's settings."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import click

from app.cli.common import progress_bar
from training.cli.train import configured, need_training_extra

SHOWN = 10


@click.command()
@click.argument("recipe")
@click.option("--trials", type=click.IntRange(min=1), default=30, show_default=True, help="Altogether.")
@click.option("--steps", type=click.IntRange(min=5), help="Of each trial.  [default: the recipe's]")
@click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True),
    help="Your <subject>/<image> folder, or where public sets lie.  [default: VISAVIS_DATA]",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the search.  [default: runs/RECIPE-tune]",
)
@click.option("--smoke", is_flag=True, help="Short trials, with data that need no download.")
@click.option("--seed", type=int, help="Seed of everything drawn.  [default: the recipe's]")
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a setting, as loop.precision=float32.",
)
@click.option("--fresh", is_flag=True, help="Begin anew where the folder holds a search.")
@click.option("--json", "as_json", is_flag=True, help="Print what came out as JSON.")
def tune(
    recipe: str,
    *,
    trials: int,
    steps: int | None,
    data: Path | None,
    out: Path | None,
    smoke: bool,
    seed: int | None,
    changes: tuple[str, ...],
    fresh: bool,
    as_json: bool,
) -> None:
    """Search for the settings of RECIPE with the least validation error (Bayesian, Optuna's TPE).

    Koch's net is searched over the ranges of its paper: learning rate, momentum, weight decay by layer,
    filters and their sizes, dense units. Any other recipe over learning rate, margin, weight decay, batch and
    dimensions around its own.

    Ctrl-C stops within a trial; the same command goes on. More --trials later add to the search.
    """
    config, data_dir = configured(recipe, data=data, smoke=smoke, seed=seed, changes=changes)
    folder = out or Path("runs") / f"{config.name}-tune{'-smoke' if smoke else ''}"
    if fresh:
        shutil.rmtree(folder, ignore_errors=True)
    need_training_extra()
    from training.train import RunStoppedError  # noqa: PLC0415 - imports TensorFlow
    from training.tune import BEST, TABLE  # noqa: PLC0415
    from training.tune import tune as search  # noqa: PLC0415

    try:
        with progress_bar(trials, f"{config.name}: trials") as progress:
            found = search(
                config, data_dir, folder, trials=trials, steps=steps or config.loop.steps, progress=progress
            )
    except RunStoppedError as stopped:
        click.echo(f"visavis: {stopped}", err=True)
        sys.exit(130)
    if as_json:
        told = {"best": str(folder / BEST), "error": found.error, "measure": found.measure}
        click.echo(json.dumps({**told, "trials": found.rows}, indent=2))
        return
    known = [row for row in found.rows if row["error"] is not None]
    for row in sorted(known, key=lambda row: (row["state"] != "complete", row["error"]))[:SHOWN]:
        click.echo(
            f"{found.measure} {row['error']:.4f}  {row['state']:<8}  trial {row['trial']}  {_shown(row)}"
        )
    click.echo(f"trials  {folder / TABLE}")
    click.echo(f"train   visavis train {folder / BEST}")


def _shown(row: dict[str, Any]) -> str:
    settings = {name: value for name, value in row.items() if name not in {"trial", "state", "error", "why"}}
    return ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in settings.items()
    )
