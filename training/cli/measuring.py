"""What the commands of ``visavis evaluate`` share: the model, embedding with failures named, layout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from app.cli.common import given, progress_bar
from app.encoding.bulk import Embedded, embed_files
from app.encoding.detection import FaceChoice
from app.encoding.model import Model, open_model
from app.settings import load_settings

as_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
model_option = click.option("--model", help="Model id.  [default: the first of VISAVIS_MODELS]")
images_option = click.option(
    "--images",
    required=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of <subject>/<image> or <group>/<subject>/<image>.",
)
seed_option = click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the draws."
)


def opened(model: str | None, models_dir: Path | None) -> Model:
    """Load the model that was asked for, or the default one."""
    settings = load_settings(**given(models_dir=models_dir))
    return open_model(settings.models_dir / (model or settings.models[0]), provider=settings.provider)


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


def span(interval: tuple[float, float], style: str = ".4f") -> str:
    """Return an interval in brackets."""
    return f"[{interval[0]:{style}}, {interval[1]:{style}}]"
