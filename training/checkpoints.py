"""The state of a run in one file, written so that a killed process leaves the old file or the new one.

A checkpoint holds every variable of the encoders, the objective and the optimiser, with the step it belongs
to and the sums of the metrics since its epoch began. Keras's own generators of random numbers are variables
too, so dropout goes on where it was.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from app.errors import VisavisError

CHECKPOINT = "checkpoint.npz"
BEST = "best.npz"


class CheckpointError(VisavisError):
    """A checkpoint belongs to another run."""

    code = "checkpoint_mismatch"


@dataclass(frozen=True)
class Place:
    """Where a run was.

    Attributes:
        step: Steps done.
        sums: Of metrics over the steps of an epoch that was broken off; empty between epochs.
    """

    step: int
    sums: dict[str, float]


def save(
    path: Path, variables: Sequence[Any], *, step: int, digest: str, sums: Mapping[str, float] | None = None
) -> None:
    """Write variables in their order.

    Args:
        path: File to replace in one step.
        variables: Keras variables.
        step: Steps done.
        digest: Of the run's configuration.
        sums: See ``Place``.
    """
    sums = sums or {}
    arrays: dict[str, Any] = {
        f"{number:05d}": np.asarray(variable) for number, variable in enumerate(variables)
    }
    scratch = path.with_suffix(".partial")
    with scratch.open("wb") as file:
        np.savez(
            file,
            step=np.int64(step),
            digest=np.array(digest),
            sums=np.array(list(sums.values()), np.float64),
            summed=np.array(list(sums), np.str_),
            **arrays,
        )
        file.flush()
        os.fsync(file.fileno())
    scratch.replace(path)


def restore(path: Path, variables: Sequence[Any], *, digest: str) -> Place:
    """Put a checkpoint's values into variables and return where the run was.

    Raises:
        CheckpointError: It was written by a run of another configuration.
    """
    with np.load(path, allow_pickle=False) as arrays:
        if str(arrays["digest"]) != digest:
            raise CheckpointError(
                f"{path} was written with another configuration; "
                "begin anew with --fresh or choose another --out"
            )
        names = sorted(set(arrays.files) - {"step", "digest", "sums", "summed"})
        if len(names) != len(variables):
            raise CheckpointError(f"{path} holds {len(names)} variables, this run has {len(variables)}")
        for name, variable in zip(names, variables, strict=True):
            variable.assign(arrays[name])
        sums: dict[str, float] = {}
        if "sums" in arrays:
            sums = dict(zip(arrays["summed"].tolist(), arrays["sums"].tolist(), strict=True))
        return Place(int(arrays["step"]), sums)
