"""Options and helpers that several commands share."""

from __future__ import annotations

import asyncio
import json
import math
import sys
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from app.encoding.image_encoder import ImageInput
from app.errors import ImageUnreadableError

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

NO_MATCH = 3
"""Exit code of a decision that is not a match."""


as_json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON, with the keys of the HTTP answers."
)
database_option = click.option(
    "--database-url", metavar="URL", help="SQLAlchemy URL of the store.  [default: sqlite:///visavis.db]"
)
models_dir_option = click.option(
    "--models-dir", type=click.Path(path_type=Path), help="Folder of bundles.  [default: the packaged ones]"
)
collection_option = click.option("--collection", default="default", show_default=True, help="Collection.")


class FiniteRange(click.FloatRange):
    """A range of numbers; ``nan`` compares as false and would slip through click's own."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:  # noqa: ANN401
        """Return the number or fail as wrong usage."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


def face_option(default: str) -> Callable[[F], F]:
    """Return the option that says which face counts when there are several."""
    return click.option(
        "--face",
        type=click.Choice(["only", "largest", "central"]),
        default=default,
        show_default=True,
        help="Which face counts when there are several (only: an error).",
    )


def given(**values: object) -> dict[str, object]:
    """Return the settings that were given on the command line."""
    return {name: value for name, value in values.items() if value is not None}


def read_image(path: str, field: str) -> ImageInput:
    """Read an image file named on the command line; ``-`` is standard input."""
    try:
        with click.open_file(path, "rb") as file:
            return ImageInput(file.read(), field)
    except OSError as error:
        raise ImageUnreadableError(f"{path}: {error.strerror}", field=field) from error


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run one service call to its end."""
    return asyncio.run(work)


def print_json(value: object) -> None:
    """Print one JSON document."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


@contextmanager
def progress_bar(total: int, label: str) -> Iterator[Callable[[int], None]]:
    """Show progress on standard error: a bar on a terminal, a line every tenth in a log."""
    if sys.stderr.isatty():
        with click.progressbar(length=total, label=label, file=sys.stderr) as bar:
            yield bar.update
        return
    done, shown = 0, 0

    def update(step: int) -> None:
        nonlocal done, shown
        done += step
        if total and done * 10 // total > shown:
            shown = done * 10 // total
            click.echo(f"{label}: {done} of {total}", err=True)

    yield update


def expand(paths: Iterable[str], suffixes: frozenset[str]) -> list[Path]:
    """Return files as given, and the image files below folders, sorted."""
    found: list[Path] = []
    for text in paths:
        path = Path(text)
        if path.is_dir():
            found.extend(p for p in sorted(path.rglob("*")) if p.suffix.lower() in suffixes)
        else:
            found.append(path)
    return found


def span(interval: tuple[float, float], style: str = ".4f") -> str:
    """Return an interval in brackets."""
    return f"[{interval[0]:{style}}, {interval[1]:{style}}]"
