"""Run the command line in process, as the installed script does."""

from __future__ import annotations

import json
from typing import Any

import click
from click.testing import CliRunner, Result

from app.cli import main


class _Script(click.Command):
    """The console script in a form that click's runner can call."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        return main(*args, **kwargs)


def visavis(*args: object, stdin: bytes | str | None = None) -> Result:
    """Run ``visavis`` with arguments; any exception but an exit is raised."""
    return CliRunner().invoke(
        _Script("visavis"), [str(arg) for arg in args], input=stdin, catch_exceptions=False
    )


def visavis_json(*args: object, exit_code: int = 0) -> Any:
    """Run ``visavis ... --json`` and return what it printed."""
    result = visavis(*args, "--json")
    assert result.exit_code == exit_code, result.output
    return json.loads(result.stdout)
