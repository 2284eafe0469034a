"""Keep libtiff from writing to standard error.

Pillow's libtiff prints a line for every fault of a file, for fax-coded TIFFs one a row: a small hostile file
could fill the log with gigabytes. Pillow offers no switch; libtiff does.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

from PIL import _imaging  # noqa: F401 - loads libtiff


def silence() -> bool:
    """Take libtiff's message handlers away; returns whether the library was found (Linux only)."""
    try:
        maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    paths = {line.split(maxsplit=5)[5] for line in maps.splitlines() if "libtiff" in line}
    for path in paths:
        library = ctypes.CDLL(path)
        for setter in (library.TIFFSetErrorHandler, library.TIFFSetWarningHandler):
            setter.argtypes = [ctypes.c_void_p]
            setter.restype = ctypes.c_void_p
            setter(None)
    return bool(paths)
