"""Random clients of four services on one store never see what is not, nor miss what is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.history import Change, History, Read, State, check
from tests.support.traffic import Traffic, services


def test_four_services_under_random_clients_agree_with_what_was_acknowledged(
    url: str, tmp_path: Path, vector_models: Path
) -> None:
    # However busy the machine is that the tests run on: what is looked for is not how long it takes.
    with services(tmp_path, vector_models, url, 4, database_timeout_s=60) as targets:
        traffic = Traffic(targets, seed=1)
        traffic.run(1500)
    assert traffic.faults() == []
    report = traffic.report()
    assert report["refused"] == {}
    assert report["acknowledged_changes"] > 200
    assert report["states_checked"] > 5000


# The judge itself: each kind of contradiction, made by hand.

ADA = ("c", "ada")
MADE = Change(0, 1, State(1, 1), None, 0)


def history(changes: list[Change], *reads: Read) -> History:
    return History({("c", ""): [MADE], ADA: changes}, list(reads))


def change(started: float, stamp: int | None, revision: int | None = None) -> Change:
    """A change that takes one second, of the collection's first life."""
    return Change(started, started + 1, State(stamp, stamp) if stamp else None, revision, 1)


def read(started: float, stamp: int, **known: Any) -> Read:
    """A read that takes one second."""
    return Read(started, started + 1, "c", (("ada", stamp),), **known)


def found(*args: Any) -> dict[str, int]:
    return dict(check(history(*args)).found)


def test_read_of_the_state_in_force_is_no_contradiction() -> None:
    assert found([change(10, 2)], read(5, 0), read(12, 2)) == {}


@pytest.mark.parametrize("stamp", [0, 2])
def test_read_beside_a_change_may_show_either_state(stamp: int) -> None:
    assert found([change(10, 2)], read(10.5, stamp)) == {}


def test_read_after_an_acknowledgement_that_misses_the_change_is_stale() -> None:
    assert found([change(10, 2), change(12, 3)], read(14, 2)) == {"stale": 1}
    assert found([change(10, 2)], read(14, 0)) == {"stale": 1}


def test_read_of_what_was_deleted_is_a_ghost() -> None:
    assert found([change(10, 2), change(12, None)], read(14, 2)) == {"ghost": 1}


def test_second_read_that_shows_less_than_the_first_is_stale() -> None:
    slow = Change(10, 20, State(2, 2), None, 1)
    assert found([slow], read(11, 2), read(13, 0)) == {"stale": 1}
    assert found([slow], read(11, 2), read(11.5, 0)) == {}


def test_state_that_no_acknowledged_change_made_is_invented() -> None:
    assert found([change(10, 2)], read(12, 7)) == {"invented": 1}
    assert found([], read(12, 7)) == {"invented": 1}


def test_distance_that_no_state_explains_is_invented() -> None:
    assert found([change(10, 2)], read(12, -1, fits=lambda state: state.stamp == 2)) == {}
    assert found([change(10, 2)], read(12, -1, fits=lambda state: state.stamp == 3)) == {"invented": 1}


@pytest.mark.parametrize(("stamp", "revision"), [(2, 5), (3, 4)])
def test_state_that_is_not_the_one_at_the_answers_revision_is_torn(stamp: int, revision: int) -> None:
    slow = Change(12, 20, State(3, 3), 5, 1)
    torn = read(13, stamp, revision=revision)
    assert found([change(10, 2, 4), slow], torn) == {"torn": 1}
    whole = read(13, stamp, revision=4 if stamp == 2 else 5)
    assert found([change(10, 2, 4), slow], whole) == {}


def test_identity_with_the_revision_of_another_change_is_torn() -> None:
    assert found([change(10, 2, 4)], read(12, 2, own_revision=4)) == {}
    assert found([change(10, 2, 4)], read(12, 2, own_revision=3)) == {"torn": 1}


def test_revision_that_goes_back_or_is_given_twice_is_found() -> None:
    assert found([change(10, 2, 4)], read(12, 2, revision=4)) == {}
    assert found([change(10, 2)], read(12, 2, revision=4), read(14, 2, revision=3)) == {"revision": 1}
    both = History({("c", ""): [MADE], ADA: [change(10, 2, 4)], ("c", "eve"): [change(10.5, 3, 4)]}, [])
    assert dict(check(both).found) == {"revision": 1}


def test_revisions_begin_anew_in_a_collection_that_was_made_again() -> None:
    again = [MADE, Change(20, 21, None, None, 0), Change(21, 22, State(9, 9), None, 0)]
    changes = [change(10, 2, 7), Change(20, 21, None, None, 1), Change(23, 24, State(3, 3), 1, 3)]
    reads = [read(12, 2, revision=7), read(25, 3, revision=1)]
    assert dict(check(History({("c", ""): again, ADA: changes}, reads)).found) == {}
