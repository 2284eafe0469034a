"""``visavis train``: run a recipe from data to a bundle and a report."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from app.cli.common import progress_bar
from app.errors import InvalidRequestError, VisavisError
from app.settings import load_settings
from training.config import FolderData, RunConfig, TextPairsData, load_recipe, recipe_names
from training.folder_defaults import folder_defaults, in_words, survey


class MissingExtraError(VisavisError):
    """TensorFlow is not installed."""

    code = "extra_missing"


def need_training_extra() -> None:
    """Refuse to go on without TensorFlow, saying how to get it.

    Raises:
        MissingExtraError: It is not installed.
    """
    if importlib.util.find_spec("tensorflow") is None:
        raise MissingExtraError("this command needs TensorFlow: pip install 'visavis[train]'")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with _silent_stderr():
        import tensorflow as tf  # noqa: PLC0415 - seconds, and only training needs it

        tf.config.list_physical_devices()


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Hold back what TensorFlow's C++ half writes before its log level counts: a dozen lines of advice."""
    kept = os.dup(2)
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@click.command()
@click.argument("recipe", required=False)
@click.option("--list", "list_recipes", is_flag=True, help="List the recipes.")
@click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True),
    help="Your <subject>/<image> folder or file of pairs, or where public sets lie.  [default: VISAVIS_DATA]",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the run.  [default: runs/RECIPE]",
)
@click.option("--smoke", is_flag=True, help="About a minute, with data that need no download.")
@click.option("--seed", type=int, help="Seed of everything drawn.  [default: the recipe's]")
@click.option("--name", help="Name of the run and of its bundle.  [default: the recipe's]")
@click.option(
    "--set", "changes", multiple=True, metavar="KEY=VALUE", help="Change a setting, as loop.steps=500."
)
@click.option("--fresh", is_flag=True, help="Begin anew where the folder holds a run.")
@click.option("--json", "as_json", is_flag=True, help="Print what came out as JSON.")
def train(
    recipe: str | None,
    *,
    list_recipes: bool,
    data: Path | None,
    out: Path | None,
    smoke: bool,
    seed: int | None,
    name: str | None,
    changes: tuple[str, ...],
    fresh: bool,
    as_json: bool,
) -> None:
    """Train RECIPE, export it as a bundle, measure it and write a report.

    RECIPE is one of 'visavis train --list' or the path of a .toml file. 'visavis train images --data FOLDER'
    takes your own <subject>/<image> folder.

    Ctrl-C leaves a checkpoint; the same command goes on from it, to the result of a run that was not stopped.
    """
    if list_recipes:
        for known in recipe_names():
            click.echo(f"{known:<24}{load_recipe(known).summary}")
        return
    if recipe is None:
        raise click.UsageError("name a RECIPE; 'visavis train --list' lists them")
    config, data_dir = configured(recipe, data=data, smoke=smoke, seed=seed, name=name, changes=changes)
    if isinstance(config.data, FolderData) and config.data.adapt:
        click.echo(in_words(config), err=True)
    folder = out or Path("runs") / (f"{config.name}-smoke" if smoke and name is None else config.name)
    if fresh:
        shutil.rmtree(folder, ignore_errors=True)
    need_training_extra()
    from training.distribute import WorkerDoneError  # noqa: PLC0415 - imports TensorFlow
    from training.run import run  # noqa: PLC0415
    from training.train import RunStoppedError  # noqa: PLC0415

    try:
        with progress_bar(config.loop.steps, config.name) as progress:
            finished = run(config, data_dir, folder, progress=progress)
    except RunStoppedError as stopped:
        click.echo(f"visavis: {stopped}", err=True)
        sys.exit(130)
    except WorkerDoneError as done:
        click.echo(f"visavis: {done}", err=True)
        return
    if as_json:
        results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        click.echo(
            json.dumps({"run": str(folder), "report": str(finished.report), "results": results}, indent=2)
        )
        return
    click.echo(finished.headline)
    click.echo(f"report  {finished.report}")
    if finished.bundle is not None:
        click.echo(f"bundle  {finished.bundle}")
        click.echo(
            f"serve   VISAVIS_MODELS_DIR={finished.bundle.parent} "
            f"VISAVIS_MODELS={finished.bundle.name} visavis serve"
        )


def configured(
    recipe: str,
    *,
    data: Path | None = None,
    smoke: bool = False,
    seed: int | None = None,
    name: str | None = None,
    changes: tuple[str, ...] = (),
) -> tuple[RunConfig, Path]:
    """Return the configuration that options ask for, and where public sets lie.

    Raises:
        RecipeError: The recipe does not exist or a change contradicts the schema.
        InvalidRequestError: A change is not KEY=VALUE, or a recipe for your own data was given none.
    """
    given: dict[str, Any] = dict(_change(text) for text in changes)
    if seed is not None:
        given["seed"] = seed
    if name is not None:
        given["name"] = name
    config = load_recipe(recipe, smoke=smoke, changes=given)
    data_dir = load_settings().data
    if isinstance(config.data, FolderData | TextPairsData) and config.data.source in {"folder", "pairs"}:
        if config.data.path is None and data is None:
            problem = f"recipe {recipe} needs your data: --data FOLDER (or FILE, for pairs of texts)"
            raise InvalidRequestError([{"field": "data", "problem": problem}])
        if data is not None and (config.data.path is None or not (data / config.data.path).exists()):
            given["data.path"] = str(data.resolve())
            config = load_recipe(recipe, smoke=smoke, changes=given)
            data = None
    if isinstance(config.data, FolderData) and config.data.adapt and config.data.source == "folder":
        found = survey(data_dir / (config.data.path or ""), leave_out=config.data.leave_out)
        config = load_recipe(recipe, smoke=smoke, changes={**folder_defaults(found), **given})
    return config, data or data_dir


def _change(text: str) -> tuple[str, Any]:
    key, sign, value = text.partition("=")
    if not sign or not key:
        raise InvalidRequestError([{"field": "set", "problem": f"{text!r} is not KEY=VALUE"}])
    try:
        return key, json.loads(value)
    except json.JSONDecodeError:
        return key, value
