"""The command ``visavis``. Each group's module is imported only when it is used, so help stays fast."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click

from app import __version__
from app.errors import ImageError, StartupError, VisavisError

_COMMANDS = {
    "serve": ("app.cli.serve", "Start the HTTP service."),
    "enroll": ("app.cli.matching", "Enrol one photo for an identity."),
    "verify": ("app.cli.matching", "Decide whether two images show the same subject."),
    "identify": ("app.cli.matching", "Find who of those enrolled an image shows."),
    "embed": ("app.cli.matching", "Write the embeddings of images to a file."),
    "detect": ("app.cli.matching", "List the faces of an image."),
    "audit": ("app.cli.audit", "Find duplicates, mislabels and look-alikes in a collection or photos."),
    "calibrate": ("app.cli.calibrate", "Measure error rates on your own people, and decide by them."),
    "identities": ("app.cli.stored", "List, show, delete, import and export identities."),
    "collections": ("app.cli.stored", "List, create, change, migrate and delete collections."),
    "models": ("app.cli.stored", "List, show, check and sign model bundles."),
    "keys": ("app.cli.stored", "Create, list and revoke API keys."),
    "db": ("app.cli.stored", "Bring the database schema up to date."),
    "evaluate": ("training.cli.evaluate", "Measure a model on labelled images."),
    "train": ("training.cli.train", "Train a model by a recipe and write a bundle and a report."),
    "tune": ("training.cli.tune", "Search for a recipe's settings."),
    "plot": ("training.cli.plot", "Draw the report of a finished run anew."),
    "data": ("training.cli.data", "List, fetch and describe data sets."),
}
"""Name: module that has it, and the line in the list of commands. The offline half is named by text only."""


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command = getattr(importlib.import_module(_COMMANDS[cmd_name][0]), cmd_name)
        assert isinstance(command, click.Command)  # noqa: S101 - the table above is ours
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="visavis")
def visavis() -> None:
    """Face and image verification: ask for an error rate, not a score.

    Exit codes: 0 done (verify: match, identify: someone matched), 1 refused or failed, 2 wrong usage,
    3 done but no match.
    """


def main(*args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - passed on to click
    """Run the command line; what the service refuses ends with its message and exit code 1."""
    try:
        visavis.main(*args, **kwargs)
    except VisavisError as error:
        code = "" if isinstance(error, StartupError) else f"{error.code}: "
        if isinstance(error, ImageError) and error.field is not None:
            code += f"{error.field}: "
        click.echo(f"visavis: {code}{error}", err=True)
        sys.exit(1)
