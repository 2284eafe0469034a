"""Where the files that come with the code are: bundles and migrations.

In a checkout they lie beside ``app/``; an installed wheel carries them inside the package.
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def resource_dir(name: str) -> Path:
    """Return the folder ``models`` or ``migrations`` that belongs to this installation."""
    packaged = _PACKAGE / "_resources" / name
    return packaged if packaged.is_dir() else _PACKAGE.parent / name
