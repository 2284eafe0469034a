"""Bounds the pixels of all images that are decoded at one time, and with them the memory they take."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class PixelGate:
    """Lets images in until their pixels reach a total; the next waits for others to leave.

    A decoded image costs about 15 bytes a pixel at the worst (a lossless WebP, a TIFF of floats), and a file
    of a hundred bytes can state any size up to the limit, so counting images would not bound memory.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._taken = 0
        self._changed = threading.Condition()

    @contextmanager
    def reservation(self) -> Iterator[Callable[[int], None]]:
        """Yield a function that takes an image's pixels, and waits for them; they are given back at the end.

        An image larger than the total waits until it is alone.
        """
        mine = 0

        def take(pixels: int) -> None:
            nonlocal mine
            with self._changed:
                self._changed.wait_for(lambda: self._taken == 0 or self._taken + pixels <= self._total)
                self._taken += pixels
                mine += pixels

        try:
            yield take
        finally:
            with self._changed:
                self._taken -= mine
                self._changed.notify_all()
