"""``visavis data``: list, fetch and describe the public data sets. Needs no TensorFlow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from app.cli.common import given, print_json, progress_bar
from app.settings import load_settings
from training.data.fetching import fetch, present, states
from training.data.sources import SETS, DataSet, find_set

_data_dir = click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of data sets.  [default: VISAVIS_DATA, else ./data]",
)
_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def data() -> None:
    """List, fetch and describe data sets."""


@data.command("list")
@_data_dir
@_as_json
def list_sets(data_dir: Path | None, as_json: bool) -> None:
    """List the data sets that are known, and which of them are here."""
    folder = _folder(data_dir)
    here = {name: present(known, folder) for name, known in SETS.items()}
    if as_json:
        print_json([{**_described(known), "present": here[name]} for name, known in SETS.items()])
        return
    for name, known in SETS.items():
        click.echo(f"{name:<14}{'here' if here[name] else '-':<6}{known.title}")
    click.echo(f"\nin {folder}; get one with: visavis data fetch NAME")


@data.command("fetch")
@click.argument("name")
@click.option(
    "--from",
    "source",
    type=click.Path(path_type=Path, exists=True),
    help="Take the files from this file or folder instead of downloading them.",
)
@_data_dir
def fetch_set(name: str, source: Path | None, data_dir: Path | None) -> None:
    """Bring a data set to the folder of data sets.

    Files are downloaded from the set's public home, or with --from found by their names anywhere below a
    folder. Only files of the pinned SHA-256 are used. What is there and right is left alone; a download that
    broke off goes on where it was.
    """
    known = find_set(name)
    folder = _folder(data_dir)
    done = fetch(known, folder, source=source, progress=progress_bar)
    for path, what in done.items():
        click.echo(f"{what:<11}{folder / path}")
    click.echo(f"licence: {known.licence}; use: {known.use}")


@data.command("info")
@click.argument("name")
@_data_dir
@_as_json
def info(name: str, data_dir: Path | None, as_json: bool) -> None:
    """Describe a data set, and check the files that are here."""
    known = find_set(name)
    folder = _folder(data_dir)
    found = states(known, folder)
    if as_json:
        print_json({**_described(known), "folder": str(folder), "states": found})
        return
    click.echo(f"{known.title}\nhome     {known.home}\nlicence  {known.licence}\nuse      {known.use}")
    click.echo(f"digests  {known.origin}")
    if known.by_hand:
        click.echo(f"to get   {known.by_hand}")
    click.echo(f"\nin {folder}:")
    for path, state in found.items():
        click.echo(f"{state:<11}{path}")
    for file in known.files:
        click.echo(f"\n{file.path}")
        for line in (*file.sha256, *file.urls):
            click.echo(f"  {line}")
    for pinned in known.folders:
        click.echo(f"\n{pinned.path}: {pinned.files} files like {pinned.pattern}")
        for line in (pinned.sha256, *pinned.urls):
            click.echo(f"  {line}")


def _folder(data_dir: Path | None) -> Path:
    return load_settings(**given(data=data_dir)).data


def _described(known: DataSet) -> dict[str, Any]:
    return {
        "name": known.name,
        "title": known.title,
        "licence": known.licence,
        "use": known.use,
        "home": known.home,
        "digests_from": known.origin,
        "files": [{"path": file.path, "sha256": file.sha256, "urls": file.urls} for file in known.files],
        "folders": [
            {"path": folder.path, "files": folder.files, "sha256": folder.sha256, "urls": folder.urls}
            for folder in known.folders
        ],
        "by_hand": known.by_hand,
    }
