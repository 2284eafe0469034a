"""Clients that verify, identify and enrol without a pause while a collection changes its model.

What each photo is by either model is known beforehand, so every distance in an answer is compared with that
of the model which the answer names: a probe of one model that met a template of the other would show.
"""

from __future__ import annotations

import base64
import itertools
import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from app.context import open_context
from app.services.filling import fill
from app.settings import load_settings
from tests.support.traffic import CutOffError, Service
from tests.support.vectors import (
    embeddings_of,
    people,
    pixels_of,
    projection,
    vector_png,
    write_vector_bundle,
)

OLD: Final = "vectors"
NEW: Final = "projected"
MODELS: Final = f"{OLD},{NEW}"
TOLERANCE: Final = 1e-5
"""Of distances; the two models' differ by some thousand times as much."""
LEAST_ANSWERS: Final = 8
"""Of a phase."""
_MATRIX: Final = projection(32)


def write_models(folder: Path) -> Path:
    """Write the bundles of both models and return their folder."""
    write_vector_bundle(folder)
    write_vector_bundle(folder, model_id=NEW, matrix=_MATRIX, card="# Model card: `projected`\n")
    return folder


@dataclass
class Phase:
    """What was answered between two steps of the change."""

    answers: Counter[str] = field(default_factory=Counter)
    models: Counter[str] = field(default_factory=Counter)
    milliseconds: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Decision:
    """What was answered to a probe: model, decision, distance and threshold of the claim, and candidates."""

    claim: tuple[str, bool, float, float]
    candidates: dict[str, tuple[float, bool]]

    def same(self, later: Decision, name: str) -> bool:
        """Return whether it was decided alike, to the last bit, on all whom both searches found.

        Others were enrolled in between, and may have pushed somebody off the end of the list.
        """
        both = self.candidates.keys() & later.candidates.keys()
        alike = all(self.candidates[who] == later.candidates[who] for who in both)
        return self.claim == later.claim and name in both and alike


def unchanged(before: dict[str, Decision], after: dict[str, Decision]) -> bool:
    """Return whether every probe was decided alike."""
    return all(decision.same(after[name], name) for name, decision in before.items())


class Load:
    """A crowd with known embeddings, and clients that ask about it."""

    def __init__(self, targets: Sequence[Service], *, crowd: int, pending: int, seed: int = 1) -> None:
        """Prepare the photos; nothing is sent yet.

        Args:
            targets: The services; a request goes to one chosen at random.
            crowd: Identities whose crops are kept.
            pending: Identities whose crops are not.
            seed: Of the vectors.
        """
        self.targets = targets
        self.crowd = [f"p{number:04d}" for number in range(crowd)]
        self.pending = [f"q{number:04d}" for number in range(pending)]
        vectors, _ = people(crowd + pending, 2, seed=seed)
        self._photo: dict[str, NDArray[np.float32]] = {}
        self._probe: dict[str, NDArray[np.float32]] = {}
        for number, name in enumerate([*self.crowd, *self.pending]):
            self._photo[name], self._probe[name] = vectors[2 * number], vectors[2 * number + 1]
        self._known: dict[str, dict[str, NDArray[np.float64]]] = {}
        for name, vector in self._photo.items():
            self._know(name, vector)
        self.phases: dict[str, Phase] = defaultdict(Phase)
        self.phase = "before"
        self.mated = True
        """Whether claims may be true. Not while second templates are made, or the probe would become one."""
        self.cut_off = 0
        """Connections that a service had closed, unused for long, when a slow machine came to use them."""
        self.wrong: list[str] = []
        self.enrolled: list[str] = []
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def enrol_all(self, names: Sequence[str]) -> None:
        """Enrol the photos of some of the crowd."""
        for name in names:
            answer = self.targets[0].call("POST", "/enroll", self._fields(self._photo[name], identity=name))
            assert answer.status == 201, answer.body

    def start(self, clients: int) -> None:
        """Let clients ask until ``stop``."""
        for number in range(clients):
            thread = threading.Thread(target=self._client, args=(random.Random(number),))
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """Let the clients finish."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def during(self, phase: str, seconds: float, step: Callable[[], object] | None = None) -> None:
        """Count what is answered from now on under a phase's name: a step, and some seconds after it.

        On a busy machine it takes longer, until something was answered.
        """
        self.phase = phase
        if step is not None:
            step()
        answers = self.phases[phase].answers
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline or answers.total() < LEAST_ANSWERS:
            assert any(thread.is_alive() for thread in self._threads), self.wrong
            time.sleep(0.02)

    def decisions(self) -> dict[str, Decision]:
        """Return what is decided on a probe of each of some of the crowd."""
        decisions: dict[str, Decision] = {}
        for name in self.crowd[:40]:
            body = self._fields(self._probe[name], identity=name, max_fmr=0.01)
            one = self._good("POST", "/verify", body)
            found = self._good("POST", "/identify", self._fields(self._probe[name], top_k=100))
            decisions[name] = Decision(
                (one["model"], one["match"], one["distance"], one["threshold"]),
                {c["identity"]: (c["distance"], c["match"]) for c in found["candidates"]},
            )
        return decisions

    def see_pending(self) -> int:
        """Verify the pending by the photo that they were enrolled with; returns how many were learnt."""
        learnt = 0
        for name in self.pending:
            body = self._fields(self._photo[name], identity=name, max_fmr=0.01)
            learnt += self._good("POST", "/verify", body)["learnt"]
        return learnt

    def lost(self, model: str) -> int:
        """Return how many acknowledged enrolments a model does not verify at the distance that is known."""
        lost = 0
        for name in [*self.crowd, *self.pending, *self.enrolled]:
            answer = self.targets[0].call("POST", "/verify", self._fields(self._photo[name], identity=name))
            at_zero = answer.status == 200 and answer.body["distance"] < TOLERANCE
            lost += not (at_zero and answer.body["model"] == model)
        return lost

    def figures(self) -> dict[str, Any]:
        """Return what was counted, by phase."""
        shown: dict[str, Any] = {}
        for name, phase in self.phases.items():
            times = np.array(phase.milliseconds or [0.0])
            shown[name] = {
                "answers": dict(phase.answers),
                "models": dict(phase.models),
                "median_ms": round(float(np.median(times)), 1),
                "p99_ms": round(float(np.percentile(times, 99)), 1),
                "longest_ms": round(float(times.max()), 1),
            }
        return shown

    def _client(self, random_: random.Random) -> None:
        while not self._stop.is_set():
            kind = random_.choices(("verify", "identify", "enrol"), (5, 4, 1))[0]
            started = time.monotonic()
            try:
                getattr(self, f"_{kind}")(random_)
            except CutOffError:
                with self._lock:
                    self.cut_off += 1
            with self._lock:
                self.phases[self.phase].milliseconds.append(1e3 * (time.monotonic() - started))

    def _verify(self, random_: random.Random) -> None:
        name, shown = random_.choice(self.crowd), random_.choice(self.crowd)
        if name == shown and not self.mated:
            return
        probe = self._probe[shown]
        answer = self._asked(random_, "/verify", self._fields(probe, identity=name, max_fmr=0.01))
        if answer is not None:
            self._compare(answer, probe, {name: answer["distance"]})

    def _identify(self, random_: random.Random) -> None:
        probe = self._probe[random_.choice(self.crowd)]
        answer = self._asked(random_, "/identify", self._fields(probe, top_k=5))
        if answer is None:
            return
        found = {one["identity"]: one["distance"] for one in answer["candidates"]}
        self._compare(answer, probe, found)
        nearest = min(self._apart(answer["model"], probe, name) for name in self.crowd)
        if not answer["candidates"] or answer["candidates"][0]["distance"] > nearest + TOLERANCE:
            self._note(f"{answer['model']}: somebody nearer than {found} is at {nearest}")

    def _enrol(self, random_: random.Random) -> None:
        with self._lock:
            name = f"e{next(self._numbers):05d}"
        vector = np.random.default_rng(random_.getrandbits(32)).standard_normal(64).astype(np.float32)
        self._know(name, vector)
        self._photo[name] = vector
        if self._asked(random_, "/enroll", self._fields(vector, identity=name)) is not None:
            self.enrolled.append(name)

    def _asked(self, random_: random.Random, path: str, body: dict[str, Any]) -> Any:
        answer = random_.choice(self.targets).call("POST", path, body)
        with self._lock:
            self.phases[self.phase].answers[f"{path} {answer.status}"] += 1
            if answer.status < 300:
                self.phases[self.phase].models[answer.body["model"]] += 1
        if answer.status < 300:
            return answer.body
        self._note(f"{path} {answer.status}: {answer.body}")
        return None

    def _compare(self, answer: Any, probe: NDArray[np.float32], found: dict[str, float]) -> None:
        for name, distance in found.items():
            known = self._apart(answer["model"], probe, name)
            if abs(distance - known) > TOLERANCE:
                self._note(f"{name} is {known} away by {answer['model']}, the answer says {distance}")

    def _apart(self, model: str, probe: NDArray[np.float32], name: str) -> float:
        shown = _embedded(probe)[model]
        return float(np.linalg.norm(shown - self._known[name][model]))

    def _know(self, name: str, vector: NDArray[np.float32]) -> None:
        self._known[name] = _embedded(vector)

    def _note(self, problem: str) -> None:
        with self._lock:
            self.wrong.append(f"{self.phase}: {problem}")

    def _good(self, method: str, path: str, body: dict[str, Any]) -> Any:
        answer = self.targets[-1].call(method, path, body)
        assert answer.status < 300, answer.body
        return answer.body

    @staticmethod
    def _fields(vector: NDArray[np.float32], **fields: object) -> dict[str, Any]:
        return {"image": base64.b64encode(vector_png(vector)).decode(), **fields}


def _embedded(vector: NDArray[np.float32]) -> dict[str, NDArray[np.float64]]:
    """Return what a photo is by each model."""
    pixels = pixels_of(vector)[None]
    return {OLD: embeddings_of(pixels)[0], NEW: embeddings_of(pixels, _MATRIX)[0]}


def change_under_load(
    load: Load, settings: dict[str, Any], *, clients: int, seconds: float
) -> dict[str, Any]:
    """Take the collection through every step while clients ask, and return what was found.

    Args:
        load: Its crowd is not enrolled yet.
        settings: Of the process that fills, as of the services.
        clients: Threads that ask.
        seconds: After each step.
    """

    def step(name: str, body: object = None) -> Any:
        answer = load.targets[0].call("POST", f"/collections/default/migration{name}", body)
        assert answer.status == 200, answer.body
        return answer.body

    load.enrol_all(load.pending)
    policy = {"policy": {"keep_images": "aligned"}}
    assert load.targets[0].call("PATCH", "/collections/default", policy).status == 200
    load.enrol_all(load.crowd)
    filling_s = 0.0

    def filling() -> None:
        nonlocal filling_s
        with open_context(load_settings(**settings), existing=True) as context:
            started = time.monotonic()
            filled = fill(context.database, context.models, "default", {})
            filling_s = time.monotonic() - started
        assert filled.from_crops + filled.overtaken >= len(load.crowd), filled

    load.start(clients)
    try:
        load.during("before", seconds)
        load.mated = False
        time.sleep(0.2)  # for claims under way
        load.during("begin", seconds, lambda: step("", {"model": NEW}))
        load.during("fill", seconds, filling)
        load.mated = True
        before = load.decisions()
        load.during("switch", seconds, lambda: step("/switch"))
        switched = load.decisions()
        load.during("rollback", seconds, lambda: step("/rollback"))
        after = load.decisions()
        load.during("switch again", seconds, lambda: step("/switch"))
        switched_again = load.decisions()
        pending = step("/switch")["pending"]
        learnt = load.see_pending()
        load.during("finish", seconds, lambda: step("/finish", {}))
        load.during("after", seconds)
    finally:
        load.stop()
    answers = [one for phase in load.phases.values() for one in phase.answers.items()]
    return {
        "requests": sum(count for _, count in answers),
        "refused": sum(count for what, count in answers if not what.split()[1].startswith("2")),
        "cut_off": load.cut_off,
        "wrong": len(load.wrong),
        "examples": load.wrong[:5],
        "decisions_compared": len(before),
        "identical_after_rollback": unchanged(before, after),
        "identical_after_second_switch": unchanged(switched, switched_again),
        "models_differ": not unchanged(before, switched),
        "pending_before_they_were_seen": pending,
        "learnt": learnt,
        "enrolled_meanwhile": len(load.enrolled),
        "lost": load.lost(NEW),
        "filling_s": round(filling_s, 2),
        "phases": load.figures(),
    }
