"""Write labelled images as somebody's own folder."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from tests.support.images import encoded
from training.data.labelled import LabelledImages


def written(folder: Path, data: LabelledImages, *, invert: bool = False) -> Path:
    """Write ``<subject>/<number>.png``; slashes of a subject's name become hyphens."""
    for number, (pixels, label) in enumerate(zip(data.images, data.labels, strict=True)):
        home = folder / data.subjects[label].replace("/", "-")
        home.mkdir(parents=True, exist_ok=True)
        shown = 255 - pixels if invert else pixels
        (home / f"{number:04d}.png").write_bytes(encoded(Image.fromarray(shown.squeeze())))
    return folder
