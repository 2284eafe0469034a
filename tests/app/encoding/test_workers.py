"""Bounded admission, the threads behind it, and how many cores there are to use."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace

import pytest

from app.encoding import cores
from app.encoding.cores import available_cores
from app.encoding.workers import Workers
from app.errors import BusyError


def test_places_are_the_threads_and_the_queue() -> None:
    workers = Workers(threads=2, queue_limit=3)
    with workers.admit(2), workers.admit(3):
        assert workers.admitted == 5
        with pytest.raises(BusyError, match="5 images are being worked on or waiting"), workers.admit(1):
            pytest.fail("a sixth image was admitted")
        assert workers.admitted == 5
    assert workers.admitted == 0
    workers.close()


def test_refusal_says_when_to_come_back() -> None:
    workers = Workers(threads=1, queue_limit=0)
    with workers.admit(1), pytest.raises(BusyError) as caught, workers.admit(1):
        pytest.fail("a second image was admitted")
    assert caught.value.retry_after_s == 1
    workers.close()


def test_place_is_free_again_after_an_error() -> None:
    workers = Workers(threads=1, queue_limit=0)
    for _ in range(3):
        with pytest.raises(KeyError), workers.admit(1):
            raise KeyError
    assert workers.admitted == 0
    workers.close()


def test_request_larger_than_the_queue_is_served_when_nothing_else_waits() -> None:
    workers = Workers(threads=1, queue_limit=0)
    with workers.admit(2), pytest.raises(BusyError), workers.admit(1):
        pytest.fail("an image beside the large request was admitted")
    workers.close()


def test_work_runs_on_the_threads_and_returns_its_result() -> None:
    workers = Workers(threads=1, queue_limit=0)

    def work(number: int, *, plus: int) -> tuple[int, str]:
        return number + plus, threading.current_thread().name

    result, name = asyncio.run(workers.run(work, 2, plus=3))
    assert result == 5
    assert name.startswith("images")
    workers.close()


def test_error_of_the_work_comes_back() -> None:
    workers = Workers(threads=1, queue_limit=0)

    def work() -> None:
        raise LookupError("no such thing")

    with pytest.raises(LookupError, match="no such thing"):
        asyncio.run(workers.run(work))
    workers.close()


def test_no_more_images_are_worked_on_at_once_than_there_are_threads() -> None:
    workers = Workers(threads=2, queue_limit=20)
    running, most = 0, 0
    lock, both = threading.Lock(), threading.Barrier(2, timeout=5)

    def work() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        both.wait()  # passes only when two run at the same time
        with lock:
            running -= 1

    async def all_of_them() -> None:
        await asyncio.gather(*(workers.run(work) for _ in range(6)))

    asyncio.run(all_of_them())
    assert most == 2
    workers.close()


def test_closing_waits_for_the_work() -> None:
    workers = Workers(threads=1, queue_limit=0)
    started, finished = threading.Event(), threading.Event()

    def work() -> None:
        started.set()
        threading.Event().wait(0.05)
        finished.set()

    future = workers._pool.submit(work)
    started.wait(5)
    workers.close()
    assert finished.is_set()
    assert future.done()


def test_no_thread_count_means_one_a_core() -> None:
    workers = Workers(threads=0, queue_limit=0)
    assert workers.threads == available_cores()
    workers.close()


# The text of /sys/fs/cgroup/cpu.max (quota and period in microseconds) on a machine with 8 cores.
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("max 100000\n", 8),
        ("200000 100000\n", 2),
        ("150000 100000\n", 2),
        ("50000 100000\n", 1),
        ("1600000 100000\n", 8),
        ("1000 100000\n", 1),
        ("", 8),
        ("garbage\n", 8),
        ("many 100000\n", 8),
        (None, 8),
    ],
)
def test_cores_are_bounded_by_the_quota_of_the_container(
    monkeypatch: pytest.MonkeyPatch, text: str | None, expected: int
) -> None:
    def read_text(encoding: str) -> str:
        if text is None:
            raise FileNotFoundError
        return text

    monkeypatch.setattr(cores, "Path", lambda path: SimpleNamespace(read_text=read_text))
    monkeypatch.setattr(
        cores, "os", SimpleNamespace(sched_getaffinity=lambda process: set(range(8)), cpu_count=lambda: 64)
    )
    assert available_cores() == expected


@pytest.mark.parametrize(("count", "expected"), [(6, 6), (None, 1)])
def test_cores_without_an_affinity_mask_are_those_of_the_machine(
    monkeypatch: pytest.MonkeyPatch, count: int | None, expected: int
) -> None:
    def read_text(encoding: str) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(cores, "Path", lambda path: SimpleNamespace(read_text=read_text))
    monkeypatch.setattr(cores, "os", SimpleNamespace(cpu_count=lambda: count))
    assert available_cores() == expected
