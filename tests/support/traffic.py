"""Random clients of several services on one store, who write down what they did and saw.

The choice of operations comes from a seed, their interleaving from the machine: what contradicts is found in
the history (``tests.support.history``), not replayed. A state machine that generates and shrinks sequences
would run one operation at a time, and what is looked for here happens between operations that overlap.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import itertools
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import numpy as np

from tests.support.history import Change, History, Key, Read, State, check
from tests.support.server import Server, start, wait_until_ready
from tests.support.vectors import SIZE, vector_png

TEMPLATES: Final = 1500
PROBES: Final = 64
IDLE_S: Final = 2.0
"""A connection unused for longer is made anew: the service closes those that are idle."""
LIMIT_S: Final = 120.0
"""For an answer, and for a service to answer again."""
PATIENCE_S: Final = 0.1
"""How long a client waits after a refusal, where outages are expected."""
TOLERANCE: Final = 1e-5
"""Of distances: two templates drawn at random are farther apart by some thousand times as much."""

CHANGING: Final = {"enrol": 14, "replace": 8, "describe": 6, "rename": 5, "delete": 9, "recreate": 0.4}
READING: Final = {"identify": 30, "verify": 10, "list": 8, "get": 8}
CONTEST: Final = {"contest": 1.6}
"""How often each operation is chosen, in parts of their sum."""


class CutOffError(Exception):
    """The connection broke: the service may have done what was asked, or not."""


class UnexpectedError(Exception):
    """An answer that the service should not give here."""


@dataclass
class Answer:
    """A whole answer."""

    started: float
    ended: float
    status: int
    retry_after: str | None
    media_type: str
    body: Any

    @property
    def code(self) -> str:
        return str(self.body.get("code")) if isinstance(self.body, dict) else ""


class Service:
    """One service process; clients hold a connection each to it."""

    def __init__(self, launch: Callable[[], Server]) -> None:
        self._launch = launch
        self.server = launch()
        self._local = threading.local()
        self._opened: list[http.client.HTTPConnection] = []
        self.log: list[tuple[float, float, bool]] = []
        """Of every answer: when it was asked for, when it came, and whether the store was at hand."""

    def call(self, method: str, path: str, body: object = None) -> Answer:
        """Send a request.

        Raises:
            CutOffError: No whole answer came.
        """
        data = None if body is None else json.dumps(body).encode()
        connection = self._connection()
        started = time.monotonic()
        try:
            connection.request(method, path, data, {"Content-Type": "application/json"} if data else {})
            response = connection.getresponse()
            raw = response.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            self._local.connection = None
            raise CutOffError(f"{method} {path}: {error!r}") from error
        ended = self._local.used = time.monotonic()
        answer = Answer(
            started,
            ended,
            response.status,
            response.getheader("Retry-After"),
            response.getheader("Content-Type", ""),
            json.loads(raw) if raw else None,
        )
        self.log.append((started, ended, response.status != 503))
        return answer

    def kill_and_restart(self) -> None:
        """Kill the process as it is, start another in its place, and return when that is ready."""
        self.server.kill()
        self.server = self._launch()
        wait_until_ready(self.server, LIMIT_S)

    def close(self) -> None:
        """Close the connections of all clients."""
        for connection in self._opened:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        held: tuple[int, http.client.HTTPConnection] | None = getattr(self._local, "connection", None)
        port = self.server.port
        if held is not None and held[0] == port and time.monotonic() - self._local.used < IDLE_S:
            return held[1]
        if held is not None:
            held[1].close()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT_S)
        self._opened.append(connection)
        self._local.connection = (port, connection)
        self._local.used = time.monotonic()
        return connection


@contextmanager
def services(
    folder: Path, models_dir: Path, database_url: str, count: int, **settings: object
) -> Iterator[list[Service]]:
    """Start services on one store side by side, and kill those that still run at the end."""
    started: list[Service] = []
    try:
        for number in range(count):
            own = folder / f"service-{number}"
            own.mkdir()
            values = {"database_url": database_url, "log_level": "warning", **settings}
            started.append(Service(partial(start, own, models_dir, "vectors", **values)))
        for service in started:
            wait_until_ready(service.server, LIMIT_S)
        yield started
    finally:
        for service in started:
            service.close()
            if service.server.process.poll() is None:
                service.server.kill()


@dataclass
class Tally:
    """What was counted while the clients ran."""

    operations: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    """Answers that say the store is not at hand, by code, and connections cut off."""
    wrong: Counter[str] = field(default_factory=Counter)
    """What no answer should be, by kind."""
    examples: list[str] = field(default_factory=list)
    settled: Counter[str] = field(default_factory=Counter)
    """What became of writes whose answer did not tell."""
    seconds: float = 0.0


class Traffic:
    """Clients, what they did, and what they saw."""

    def __init__(
        self,
        targets: Sequence[Service],
        *,
        seed: int = 1,
        collections: int = 2,
        names: int = 32,
        outages: bool = False,
    ) -> None:
        """Prepare templates and probes; nothing is sent yet.

        Args:
            targets: The services.
            seed: Of the choice of operations.
            collections: How many, each with its own identities.
            names: Identities a collection may have.
            outages: Whether services and store may be away now and then: 503 and broken connections count
                as refusals, and nothing is contested.
        """
        self.history = History()
        self.tally = Tally()
        self._targets = targets
        self._seed = seed
        self._outages = outages
        self._collections = [f"c{number}" for number in range(collections)]
        self._names = [f"person {number:02d}" for number in range(names)]
        self._locks = {
            (collection, name): threading.Lock() for collection in self._collections for name in self._names
        }
        self._stamps = itertools.count(1)
        self._lock = threading.Lock()
        rng = np.random.default_rng(seed)
        self._templates = [_drawn(rng) for _ in range(TEMPLATES)]
        self._probes = [_drawn(rng) for _ in range(PROBES)]
        self._matrix = np.stack([template.vector for template in self._templates])
        self._template_of: dict[int, int] = {}
        kinds = {**CHANGING, **READING, **({} if outages else CONTEST)}
        self._kinds, self._weights = list(kinds), list(kinds.values())
        self.done = 0
        """Operations begun so far."""

    def run(
        self,
        operations: int,
        clients: int = 8,
        *,
        disturb: Callable[[], None] | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """Make the collections and let the clients loose; returns when all operations are done.

        Args:
            operations: How many; while ``disturb`` runs there may be more.
            clients: How many at once.
            disturb: Runs beside them, and takes services or the store away and brings them back.
            progress: Called with 1 for each operation.

        Raises:
            Exception: A client failed; its first error is raised.
        """
        began = time.monotonic()
        for collection in self._collections:
            self._recreate(random.Random(self._seed), collection, first=True)
        stop = threading.Event()
        quiet = threading.Event()

        def client(number: int) -> None:
            choose = random.Random(f"{self._seed} {number}")
            try:
                while not stop.is_set() and (self.done < operations or not quiet.is_set()):
                    with self._lock:
                        self.done += 1
                    self._one(choose)
                    if progress is not None:
                        progress(1)
            except BaseException:
                stop.set()
                raise

        def disturber() -> None:
            try:
                if disturb is not None:
                    disturb()
            finally:
                quiet.set()

        with ThreadPoolExecutor(clients + 1) as pool, ThreadPoolExecutor(3 * clients) as rivals:
            self._rivals = rivals
            tasks = [pool.submit(disturber), *(pool.submit(client, number) for number in range(clients))]
            for task in tasks:
                task.result()
        self.tally.seconds = time.monotonic() - began
        for service in self._targets:
            for collection in self._collections:
                self._patiently(partial(self._identify, random.Random(self._seed), service, collection))
                self._patiently(partial(self._list, service, collection))

    def report(self) -> dict[str, Any]:
        """Return the figures, and what contradicts."""
        verdict = check(self.history)
        tally = self.tally
        done = sum(tally.operations.values())
        return {
            "operations": done,
            "by_kind": dict(sorted(tally.operations.items())),
            "seconds": round(tally.seconds, 1),
            "operations_per_second": round(done / max(tally.seconds, 1e-9), 1),
            "acknowledged_changes": sum(
                len(changes) for key, changes in self.history.changes.items() if key[1]
            ),
            "reads_checked": len(self.history.reads),
            "states_checked": sum(len(read.shows) for read in self.history.reads),
            "stale_reads": verdict.found["stale"],
            "ghosts": verdict.found["ghost"],
            "invented": verdict.found["invented"],
            "torn": verdict.found["torn"],
            "revisions_monotone": verdict.found["revision"] == 0,
            "refused": dict(tally.refused),
            "writes_of_unknown_outcome": dict(tally.settled),
            "wrong_answers": dict(tally.wrong),
            "examples": [*verdict.examples, *tally.examples],
        }

    def faults(self) -> list[str]:
        """Return everything that is wrong, in words; empty when nothing is."""
        verdict = check(self.history)
        counted = {**verdict.found, **self.tally.wrong}
        return [str(counted), *verdict.examples, *self.tally.examples] if counted else []

    # One operation.

    def _one(self, choose: random.Random) -> None:
        (kind,) = choose.choices(self._kinds, self._weights)
        service = choose.choice(self._targets)
        collection = choose.choice(self._collections)
        self._count(self.tally.operations, kind)
        try:
            match kind:
                case "identify":
                    self._identify(choose, service, collection)
                case "verify":
                    self._verify(choose, service, collection, choose.choice(self._names))
                case "list":
                    self._list(service, collection)
                case "get":
                    self._get(service, collection, choose.choice(self._names))
                case "recreate":
                    self._recreate(choose, collection)
                case "contest":
                    self._contest(choose)
                case _:
                    self._change(choose, service, kind, collection)
        except CutOffError as error:
            if not self._outages:
                self._wrong("connection", str(error))
            else:
                self._count(self.tally.refused, "connection")
                time.sleep(PATIENCE_S)
        except UnexpectedError as error:
            self._wrong("answer", str(error))

    def _call(self, service: Service, method: str, path: str, body: object = None, *, ok: set[int]) -> Answer:
        """Send a request; a refusal because of an outage is returned as it is.

        Raises:
            UnexpectedError: Another status than those, or a refusal that is not as documented.
        """
        answer = service.call(method, path, body)
        if answer.status in ok:
            return answer
        refused = (
            answer.status == 503
            and answer.media_type.startswith("application/problem+json")
            and answer.code in {"busy", "outcome_unknown"}
            and int(answer.retry_after or 0) >= 1
        )
        if not refused:
            raise UnexpectedError(f"{method} {path}: {answer.status} {answer.body}")
        self._count(self.tally.refused, answer.code)
        if self._outages:
            time.sleep(PATIENCE_S)
        return answer

    # Reads.

    def _identify(self, choose: random.Random, service: Service, collection: str) -> bool:
        probe = choose.randrange(PROBES)
        body = {"image": self._probes[probe].image, "collection": collection, "top_k": 100}
        answer = self._call(service, "POST", "/identify", body, ok={200, 404})
        if answer.status != 200:
            return self._absent(answer, collection)
        found = answer.body["candidates"]
        shows = {candidate["identity"]: candidate["metadata"]["write"] for candidate in found}
        distances = [candidate["distance"] for candidate in found]
        rows = [self._template_of[stamp] for stamp in shows.values()]
        true = np.linalg.norm(self._matrix[rows] - self._probes[probe].vector, axis=1)
        if not np.allclose(true, distances, rtol=0, atol=TOLERANCE) or distances != sorted(distances):
            self._wrong("distances", f"{collection}: {found}, should be {true.tolist()}")
        if answer.body["gallery_size"] != len(found):
            self._wrong("gallery_size", f"{collection}: {answer.body['gallery_size']} of {len(found)}")
        return self._saw(answer, collection, self._all(shows), answer.body["revision"])

    def _list(self, service: Service, collection: str) -> bool:
        answer = self._call(service, "GET", f"/identities?collection={collection}&limit=1000", ok={200, 404})
        if answer.status != 200:
            return self._absent(answer, collection)
        shows = {one["identity"]: one["metadata"]["write"] for one in answer.body["identities"]}
        return self._saw(answer, collection, self._all(shows), answer.body.get("revision"))

    def _get(self, service: Service, collection: str, name: str) -> bool:
        answer = self._call(service, "GET", _path(collection, name), ok={200, 404})
        if answer.code == "collection_not_found" or answer.status == 503:
            return self._absent(answer, collection)
        if answer.status == 404:
            return self._saw(answer, collection, ((name, 0),), None)
        shows = ((name, answer.body["metadata"]["write"]),)
        return self._saw(answer, collection, shows, None, own_revision=answer.body["revision"])

    def _verify(self, choose: random.Random, service: Service, collection: str, name: str) -> bool:
        probe = self._probes[choose.randrange(PROBES)]
        body = {"image": probe.image, "identity": name, "collection": collection}
        answer = self._call(service, "POST", "/verify", body, ok={200, 404})
        if answer.code == "collection_not_found" or answer.status == 503:
            return self._absent(answer, collection)
        if answer.status == 404:
            return self._saw(answer, collection, ((name, 0),), None)
        distance, vector = answer.body["distance"], probe.vector

        def fits(state: State) -> bool:
            true = float(np.linalg.norm(self._matrix[state.template] - vector))
            return bool(abs(true - distance) < TOLERANCE)

        return self._saw(answer, collection, ((name, -1),), answer.body.get("revision"), fits=fits)

    def _all(self, shows: dict[str, int]) -> tuple[tuple[str, int], ...]:
        names = [*self._names, *(name for name in shows if name not in self._names)]
        return tuple((name, shows.get(name, 0)) for name in names)

    def _saw(
        self,
        answer: Answer,
        collection: str,
        shows: tuple[tuple[str, int], ...],
        revision: int | None,
        *,
        own_revision: int | None = None,
        fits: Callable[[State], bool] | None = None,
    ) -> bool:
        read = Read(answer.started, answer.ended, collection, shows, revision, own_revision, fits)
        self.history.reads.append(read)
        return True

    def _absent(self, answer: Answer, collection: str) -> bool:
        """Note that the collection was not there; returns False where the answer was a refusal."""
        if answer.status == 503:
            return False
        self.history.reads.append(Read(answer.started, answer.ended, collection, (("", 0),)))
        return True

    # Changes. Whoever changes a name holds its lock, so what must come of it is known.

    def _change(self, choose: random.Random, service: Service, kind: str, collection: str) -> None:
        name, other = choose.sample(self._names, 2)
        keys = sorted([(collection, name), (collection, other)] if kind == "rename" else [(collection, name)])
        with ExitStack() as stack:
            for key in keys:
                stack.enter_context(self._locks[key])
            now = self._state((collection, name))
            stamp = next(self._stamps)
            if kind in {"enrol", "replace"}:
                self._enrol(service, collection, name, stamp, now, replace=kind == "replace")
            elif kind == "describe":
                self._patch(service, collection, name, name, stamp, now, {"metadata": {"write": stamp}})
            elif kind == "rename":
                change = {"identity": other, "metadata": {"write": stamp}}
                self._patch(service, collection, name, other, stamp, now, change)
            else:
                ok = {204} if now is not None else {404}
                after: dict[Key, State | None] = {(collection, name): None}
                self._settled(service, "DELETE", _path(collection, name), None, ok, after)

    def _enrol(
        self, service: Service, collection: str, name: str, stamp: int, now: State | None, *, replace: bool
    ) -> None:
        template = stamp % TEMPLATES
        self._template_of[stamp] = template
        body = {
            "identity": name,
            "collection": collection,
            "image": self._templates[template].image,
            "metadata": {"write": stamp},
            "replace": replace,
        }
        ok = {201} if now is None else {200} if replace else {409}
        self._settled(service, "POST", "/enroll", body, ok, {(collection, name): State(stamp, template)})

    def _patch(
        self,
        service: Service,
        collection: str,
        name: str,
        new_name: str,
        stamp: int,
        now: State | None,
        change: dict[str, Any],
    ) -> None:
        after: dict[Key, State | None] = {}
        ok = {404}
        if now is not None:
            self._template_of[stamp] = now.template
            taken = new_name != name and self._state((collection, new_name)) is not None
            ok = {409} if taken else {200}
            after = {(collection, name): None, (collection, new_name): State(stamp, now.template)}
        self._settled(service, "PATCH", _path(collection, name), change, ok, after)

    def _settled(
        self,
        service: Service,
        method: str,
        path: str,
        body: object,
        ok: set[int],
        after: dict[Key, State | None],
    ) -> None:
        """Send a change and note what it did; where the answer does not tell, look until that is known."""
        started = time.monotonic()
        try:
            answer = self._call(service, method, path, body, ok=ok)
        except CutOffError:
            if not self._outages:
                raise
            self._count(self.tally.refused, "connection")
            answer = None
        if answer is not None and answer.code != "outcome_unknown":
            if answer.status in {200, 201, 204}:
                revision = answer.body["revision"] if answer.body else None
                self._note(started, answer.ended, after, revision)
            return
        if ok & {404, 409}:
            return  # it would have been refused
        done = self._is_done(after)
        self._count(self.tally.settled, "done" if done else "not done")
        if done:
            self._note(started, time.monotonic(), after, None)

    def _is_done(self, after: dict[Key, State | None]) -> bool:
        """Ask what is stored, twice: the first time, a commit may still be under way in the database."""
        key, state = next(iter(after.items()))
        for pause in (0.0, 1.0):
            time.sleep(pause)
            answer = self._until_answered("GET", _path(*key), {200, 404})
            shown = answer.body["metadata"]["write"] if answer.status == 200 else None
            if shown == (None if state is None else state.stamp):
                return True
        return False

    def _recreate(self, choose: random.Random, collection: str, *, first: bool = False) -> None:
        with ExitStack() as stack:
            for name in self._names:
                stack.enter_context(self._locks[collection, name])
            if not first:
                started = time.monotonic()
                path = f"/collections/{collection}"
                answer = self._until_answered("DELETE", path, {204, 404})
                if answer.status == 404 and not self._outages:
                    self._wrong("answer", f"DELETE {path}: 404")
                after: dict[Key, State | None] = {(collection, name): None for name in self._names}
                self._note(started, answer.ended, {**after, (collection, ""): None}, None)
            started = time.monotonic()
            body = {"name": collection, "model": "vectors"}
            answer = self._until_answered("POST", "/collections", {201, 409}, body)
            if answer.status == 409 and not self._outages:
                self._wrong("answer", f"POST /collections {collection}: 409")
            self._note(started, answer.ended, {(collection, ""): State(next(self._stamps), 0)}, None)

    def _until_answered(self, method: str, path: str, ok: set[int], body: object = None) -> Answer:
        """Send a request to one service after the other until the store is at hand."""
        deadline = time.monotonic() + LIMIT_S
        for service in itertools.cycle(self._targets):
            with contextlib.suppress(CutOffError):
                answer = self._call(service, method, path, body, ok=ok)
                if answer.status in ok:
                    return answer
            if time.monotonic() > deadline:
                raise UnexpectedError(f"{method} {path}: no answer")
            time.sleep(0.05)
        raise AssertionError("cycles for ever")

    def _patiently(self, read: Callable[[], bool]) -> None:
        """Repeat a read until it is answered."""
        deadline = time.monotonic() + LIMIT_S
        while time.monotonic() < deadline:
            with contextlib.suppress(CutOffError):
                if read():
                    return
            time.sleep(0.1)
        raise UnexpectedError(f"a service did not answer within {LIMIT_S:g} s")

    def _state(self, key: Key) -> State | None:
        changes = self.history.changes.get(key)
        return changes[-1].state if changes else None

    def _note(
        self, started: float, ended: float, after: dict[Key, State | None], revision: int | None
    ) -> None:
        for key, state in after.items():
            collection = self.history.changes.get((key[0], ""), [])
            if state is None and self._state(key) is None:
                continue  # a deleted collection had no such identity
            life = len(collection) if key[1] else 0
            self.history.changes.setdefault(key, []).append(Change(started, ended, state, revision, life))

    # Contests: several want the same at once, and exactly one gets it.

    def _contest(self, choose: random.Random) -> None:
        stamp = next(self._stamps)
        scratch = f"contest-{stamp}"
        rivals = [choose.choice(self._targets) for _ in range(3)]
        collection = {"name": scratch, "model": "vectors"}
        enrol = {
            "identity": "prize",
            "collection": scratch,
            "image": self._templates[stamp % TEMPLATES].image,
            "metadata": {"write": stamp},
        }
        prize = _path(scratch, "prize")
        self._until_answered("POST", "/collections", {201}, collection)
        self._one_of(rivals, "POST", "/enroll", enrol, won=201, lost=409)
        self._one_of(rivals, "DELETE", prize, None, won=204, lost=404)
        late = self._rivals.submit(rivals[0].call, "POST", "/enroll", enrol)
        self._until_answered("DELETE", f"/collections/{scratch}", {204})
        if late.result().status not in {201, 404, 503}:
            self._wrong("contest", f"enrolment beside a deletion: {late.result().body}")
        self._until_answered("POST", "/collections", {201}, collection)
        page = self._until_answered("GET", f"/identities?collection={scratch}", {200})
        if page.body["identities"]:
            self._wrong("contest", f"an identity outlived its collection: {page.body}")
        self._until_answered("DELETE", f"/collections/{scratch}", {204})

    def _one_of(
        self, rivals: list[Service], method: str, path: str, body: object, *, won: int, lost: int
    ) -> None:
        """Let all rivals ask for the same at once: one gets it, unless the store was too busy for some."""
        attempts = [self._rivals.submit(service.call, method, path, body) for service in rivals]
        statuses = sorted(attempt.result().status for attempt in attempts)
        told = [status for status in statuses if status != 503]
        if set(told) - {won, lost} or told.count(won) > 1 or (told == statuses and won not in told):
            self._wrong("contest", f"{method} {path}: {statuses}")

    def _wrong(self, kind: str, text: str) -> None:
        with self._lock:
            self.tally.wrong[kind] += 1
            if len(self.tally.examples) < 10:
                self.tally.examples.append(f"{kind}: {text[:2000]}")

    def _count(self, counter: Counter[str], key: str) -> None:
        with self._lock:
            counter[key] += 1


@dataclass(frozen=True)
class _Drawn:
    """A photo and the embedding that the model makes of it."""

    image: str
    vector: np.ndarray[Any, np.dtype[np.float64]]


def _drawn(rng: np.random.Generator) -> _Drawn:
    direction = rng.standard_normal(SIZE)
    pixels = np.rint(127.5 + 127.5 * direction / np.abs(direction).max()) - 127.5
    image = base64.b64encode(vector_png(direction)).decode()
    return _Drawn(image, pixels / np.linalg.norm(pixels))


def _path(collection: str, name: str) -> str:
    return f"/identities/{quote(name, safe='')}?collection={collection}"
