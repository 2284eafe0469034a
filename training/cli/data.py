"""``visavis data``: list, fetch and describe the public data sets. Needs no TensorFlow."""

from __future__ import annotations

import click


@click.group()
def data() -> None:
    """List, fetch and describe data sets."""
