"""A change of model and back under load: no request is refused, no answer mixes models, nothing is lost.

    python -m benchmarks.migration --database sqlite --crowd 200 --seconds 5
    python -m benchmarks.migration --database postgresql --crowd 200 --seconds 5

Clients verify, identify and enrol through two services without a pause, while the collection goes through
begin, fill, switch, rollback, switch and finish. Each distance is compared with the one that is known of the
model which the answer names, and the decisions before the first switch with those after the rollback, to the
last bit (``tests.support.migrating``).
"""

from __future__ import annotations

import json
import tempfile
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import click

from app.storage import migrate
from app.storage.database import Database
from tests.support.migrating import MODELS, Load, change_under_load, write_models
from tests.support.postgres import create_database, postgres_server
from tests.support.server import start, wait_until_ready
from tests.support.traffic import Service


@click.command(help=__doc__)
@click.option("--database", default="sqlite", show_default=True, help="sqlite, postgresql or a URL.")
@click.option("--crowd", default=200, show_default=True, help="identities whose crops are kept")
@click.option("--pending", default=10, show_default=True, help="identities whose crops are not")
@click.option("--clients", default=4, show_default=True, help="threads that ask")
@click.option("--seconds", default=5.0, show_default=True, help="after each step")
def main(database: str, crowd: int, pending: int, clients: int, seconds: float) -> None:
    """Run the benchmark and print its figures as JSON; ends with 1 where anything is wrong."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        models_dir = write_models(folder / "models")
        url = f"sqlite:///{folder / 'visavis.db'}" if database == "sqlite" else database
        if database == "postgresql":
            url = create_database(stack.enter_context(postgres_server()), "migration")
        with closing(Database(url, timeout_s=10, pool_size=1)) as opened:
            migrate.upgrade(opened)
        targets = []
        for number in range(2):
            own = folder / f"service-{number}"
            own.mkdir()
            launch = partial(start, own, models_dir, MODELS, database_url=url, log_level="warning")
            targets.append(Service(launch))
            stack.callback(targets[-1].server.kill)
            stack.callback(targets[-1].close)
        for target in targets:
            wait_until_ready(target.server, limit_s=180)
        load = Load(targets, crowd=crowd, pending=pending)
        settings = {
            "database_url": url,
            "models_dir": models_dir,
            "models": tuple(MODELS.split(",")),
            "provider": "cpu",
        }
        report = change_under_load(load, settings, clients=clients, seconds=seconds)
    click.echo(json.dumps({"database": database, "crowd": crowd, "clients": clients, **report}, indent=2))
    same = report["identical_after_rollback"] and report["identical_after_second_switch"]
    if report["refused"] or report["wrong"] or report["lost"] or not same:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
