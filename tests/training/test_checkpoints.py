from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from training.checkpoints import CheckpointError, Place, restore, save


def variables(*values: Any) -> list[keras.Variable]:
    return [keras.Variable(np.asarray(value), dtype=np.asarray(value).dtype.name) for value in values]


def test_values_types_step_and_sums_come_back(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.npz"
    values = (np.arange(6, dtype=np.float32).reshape(2, 3), np.uint32(7), np.int64(2**40), np.float32(0.1))
    save(path, variables(*values), step=12, digest="a", sums={"loss": 0.1, "steps": 3.0})

    fresh = variables(*(np.zeros_like(value) for value in values))
    place = restore(path, fresh, digest="a")

    assert place == Place(12, {"loss": 0.1, "steps": 3.0})
    for variable, value in zip(fresh, values, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


def test_hundred_thousand_variables_would_still_be_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.npz"
    save(path, variables(*np.arange(12.0, dtype=np.float32)), step=1, digest="a")
    fresh = variables(*np.zeros(12, np.float32))
    restore(path, fresh, digest="a")
    assert [float(variable.numpy()) for variable in fresh] == list(range(12))


def test_write_torn_in_the_middle_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "checkpoint.npz"
    save(path, variables(np.float32(1)), step=1, digest="a")

    def full_disk(_: int) -> None:
        raise OSError("no space left on device")

    # What was written until then lies beside it, unfinished.
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="no space left"):
        save(path, variables(np.float32(2)), step=2, digest="a")

    fresh = variables(np.float32(0))
    assert restore(path, fresh, digest="a").step == 1
    assert float(fresh[0].numpy()) == 1
    monkeypatch.undo()
    save(path, variables(np.float32(3)), step=3, digest="a")
    assert restore(path, fresh, digest="a").step == 3
    assert [entry.name for entry in tmp_path.iterdir()] == ["checkpoint.npz"]


def test_other_configuration_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.npz"
    save(path, variables(np.float32(1)), step=1, digest="a")
    fresh = variables(np.float32(5))
    with pytest.raises(CheckpointError, match="--fresh") as refused:
        restore(path, fresh, digest="b")
    assert refused.value.code == "checkpoint_mismatch"
    assert float(fresh[0].numpy()) == 5


def test_other_number_of_variables_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.npz"
    save(path, variables(np.float32(1)), step=1, digest="a")
    with pytest.raises(CheckpointError, match="holds 1 variables, this run has 2"):
        restore(path, variables(np.float32(1), np.float32(2)), digest="a")
