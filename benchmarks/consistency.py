"""Random clients of several services on one store: what they saw, compared with what was acknowledged.

    python -m benchmarks.consistency --operations 100000 --processes 4 --database sqlite
    python -m benchmarks.consistency --operations 100000 --database postgresql --outages 10 --kills 10

Identities are enrolled, replaced, renamed, described and deleted, collections deleted and made again, and all
of it is read by identify, verify, get and list, each time through a service chosen at random. Every answer is
compared with the changes acknowledged before and during it (``tests.support.history``).

``--outages`` kills PostgreSQL (its first process, or all of it at once) that often while clients go on, and
starts it again; ``--kills`` does the same to services. Anything but a 503 as documented counts as wrong then.
"""

from __future__ import annotations

import json
import random
import signal
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import click

from app.cli.common import progress_bar
from app.storage import migrate
from app.storage.database import Database
from tests.support.postgres import crash, create_database, postgres_server, restart
from tests.support.traffic import Service, Traffic, services
from tests.support.vectors import write_vector_bundle


class Disturbance:
    """Takes the store and services away, evenly over a run, and measures how fast answers come again."""

    def __init__(self, traffic: Traffic, targets: list[Service], operations: int, server: Any) -> None:  # noqa: ANN401
        self._traffic = traffic
        self._targets = targets
        self._operations = operations
        self._server = server
        self._choose = random.Random(operations)
        self._away: list[tuple[float, float]] = []

    def run(self, outages: int, kills: int) -> None:
        """Do them all, in random order, while the clients go on."""
        events: list[Callable[[], None]] = [self._outage] * outages + [self._kill] * kills
        self._choose.shuffle(events)
        for number, event in enumerate(events, 1):
            while self._traffic.done < number * self._operations / (len(events) + 1):
                time.sleep(0.02)
            event()

    def figures(self) -> dict[str, Any]:
        """Return how long each service refused after the database was back."""
        downs = [down for down, _ in self._away[1:]] + [float("inf")]
        refused = [
            max(
                (
                    ended - up
                    for started, ended, good in target.log
                    if not good and started >= up and ended < next_
                ),
                default=0.0,
            )
            for (_, up), next_ in zip(self._away, downs, strict=True)
            for target in self._targets
        ]
        first = [
            min((ended - up for started, ended, good in target.log if good and started >= up), default=None)
            for _, up in self._away
            for target in self._targets
        ]
        answered = [value for value in first if value is not None]
        return {
            "longest_away_s": round(max((up - down for down, up in self._away), default=0.0), 2),
            "last_refusal_after_return_s": round(max(refused, default=0.0), 3),
            "first_answer_after_return_s": round(max(answered, default=0.0), 3),
            "services_that_never_answered_again": len(first) - len(answered),
        }

    def _outage(self) -> None:
        down = time.monotonic()
        crash(self._server, self._choose.choice((signal.SIGKILL, signal.SIGQUIT)))
        time.sleep(self._choose.uniform(0.0, 2.0))
        restart(self._server)
        self._away.append((down, time.monotonic()))

    def _kill(self) -> None:
        self._choose.choice(self._targets).kill_and_restart()


@click.command(help=__doc__)
@click.option("--operations", default=100_000, show_default=True)
@click.option("--processes", default=4, show_default=True, help="services on the one store")
@click.option("--clients", default=8, show_default=True, help="at once")
@click.option(
    "--database", default="sqlite", show_default=True, help="sqlite, postgresql, or an empty store's URL"
)
@click.option("--seed", default=1, show_default=True)
@click.option("--outages", default=0, show_default=True, help="of PostgreSQL, of the server started here")
@click.option("--kills", default=0, show_default=True, help="of services")
def main(
    operations: int, processes: int, clients: int, database: str, seed: int, outages: int, kills: int
) -> None:
    """Run it and print the figures as JSON; exit with 1 when anything contradicts."""
    if outages and database != "postgresql":
        raise click.UsageError("--outages needs --database postgresql: the server must be this program's own")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        write_vector_bundle(folder / "models")
        server = None
        url = database
        if database == "sqlite":
            url = f"sqlite:///{folder / 'visavis.db'}"
        elif database == "postgresql":
            server = stack.enter_context(postgres_server())
            url = create_database(server, "consistency")
        with closing(Database(url, timeout_s=5, pool_size=1)) as store:
            migrate.upgrade(store)
        targets = stack.enter_context(services(folder, folder / "models", url, processes))
        traffic = Traffic(targets, seed=seed, outages=bool(outages or kills))
        disturbance = Disturbance(traffic, targets, operations, server)
        progress = stack.enter_context(progress_bar(operations, "operations"))
        traffic.run(operations, clients, disturb=lambda: disturbance.run(outages, kills), progress=progress)
        report = traffic.report()
        if outages:
            report |= disturbance.figures()
    faults = traffic.faults()
    click.echo(
        json.dumps({"store": "postgresql" if server else database.partition(":")[0], **report}, indent=2)
    )
    if faults:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
