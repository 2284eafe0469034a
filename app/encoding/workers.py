"""Threads that do the image work of one process, and the bound on what may wait for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

from app.encoding.cores import available_cores
from app.errors import BusyError

P = ParamSpec("P")
T = TypeVar("T")


class Workers:
    """A fixed set of threads behind a bounded queue. Used from one event loop.

    Args:
        threads: How many images are worked on at once; 0 means one per available core.
        queue_limit: How many more may wait.
    """

    def __init__(self, threads: int, queue_limit: int) -> None:
        self.threads = threads or available_cores()
        self._limit = self.threads + queue_limit
        self._admitted = 0
        self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="images")

    @property
    def admitted(self) -> int:
        """Images being worked on or waiting."""
        return self._admitted

    @contextmanager
    def admit(self, images: int) -> Iterator[None]:
        """Hold a place for each image of a request, from its first stage to its last.

        Raises:
            BusyError: The queue is full.
        """
        if self._admitted + images > self._limit and self._admitted > 0:
            raise BusyError(f"{self._admitted} images are being worked on or waiting; try again")
        self._admitted += images
        try:
            yield
        finally:
            self._admitted -= images

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a function on one of the threads."""
        return await asyncio.wrap_future(self._pool.submit(work, *args, **kwargs))

    def close(self) -> None:
        """Finish running work and stop."""
        self._pool.shutdown(wait=True)
