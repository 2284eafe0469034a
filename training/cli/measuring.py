"""What the commands of ``visavis evaluate`` share: the model, embedding with failures named, layout, page."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

from app.cli.common import given, progress_bar
from app.encoding.bulk import Embedded, embed_files
from app.encoding.detection import FaceChoice
from app.encoding.model import Model, open_model
from app.errors import InvalidRequestError, VisavisError
from app.settings import load_settings

as_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
model_option = click.option("--model", help="Model id.  [default: the first of VISAVIS_MODELS]")
images_option = click.option(
    "--images",
    required=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of <subject>/<image> or <group>/<subject>/<image>.",
)
html_option = click.option(
    "--html",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Also write a page with curves, histograms and the worst cases as pictures; needs 'visavis[train]'.",
)
seed_option = click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the draws."
)


class PageExtraMissingError(VisavisError):
    """What draws pages is not installed."""

    code = "extra_missing"


def check_page(file: Path | None) -> None:
    """Refuse a page that could not be written, before any work is done.

    Args:
        file: Where it is to be written; None for no page.

    Raises:
        PageExtraMissingError: Matplotlib or Jinja is not installed.
        InvalidRequestError: The folder does not exist or cannot be written to, or FILE is a folder.
    """
    if file is None:
        return
    missing = [name for name in ("matplotlib", "jinja2") if importlib.util.find_spec(name) is None]
    if missing:
        names = " and ".join(missing)
        raise PageExtraMissingError(f"--html needs {names}: pip install 'visavis[train]'")
    folder = file.parent
    if file.is_dir():
        _refuse_page(f"{file} is a folder; name a file in it, such as {file / 'report.html'}")
    if not folder.is_dir():
        _refuse_page(f"there is no folder {folder}; make it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        _refuse_page(f"the folder {folder} cannot be written to")


def write_page(file: Path, html: str) -> None:
    """Write a page whole or not at all: what was there stays until all of it is written.

    Raises:
        InvalidRequestError: It cannot be written.
    """
    scratch = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        scratch.write_text(html, encoding="utf-8", newline="\n")
        scratch.replace(file)
    except OSError as error:
        _refuse_page(f"{file} cannot be written: {error.strerror}")
    finally:
        scratch.unlink(missing_ok=True)
    click.echo(f"page: {file}", err=True)


def _refuse_page(problem: str) -> NoReturn:
    raise InvalidRequestError([{"field": "html", "problem": problem}])


def opened(model: str | None, models_dir: Path | None) -> Model:
    """Load the model that was asked for, or the default one."""
    settings = load_settings(**given(models_dir=models_dir))
    return open_model(
        settings.models_dir / (model or settings.models[0]),
        provider=settings.provider,
        trusted_keys=settings.trusted_keys,
    )


def embedded_with_progress(
    loaded: Model, paths: Sequence[Path], face: FaceChoice, folder: Path | None = None
) -> Embedded:
    """Embed files; name those that fail, and why, on standard error.

    Args:
        loaded: The model.
        paths: Image files.
        face: Which face counts.
        folder: What names are relative to; full paths by default.
    """
    with progress_bar(len(paths), "embedding") as progress:
        embedded = embed_files(loaded.images, paths, face, progress=progress)
    for path, reason in zip(embedded.paths, embedded.reasons, strict=True):
        if reason:
            click.echo(f"{path.relative_to(folder) if folder else path}: {reason}", err=True)
    return embedded


def described(loaded: Model) -> dict[str, Any]:
    """Return the keys that every answer begins with."""
    return {"model": loaded.model_id, "model_digest": loaded.digest, "metric": loaded.manifest.metric}


def model_line(loaded: Model) -> str:
    """Return the line that every table begins with."""
    return (
        f"model     {loaded.model_id} {loaded.manifest.version} ({loaded.digest[:12]}), "
        f"{loaded.manifest.metric} distance"
    )
