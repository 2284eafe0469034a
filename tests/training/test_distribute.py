from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from training.config import RecipeError, load_recipe
from training.data.pipeline import Share
from training.distribute import Distribution, DistributionError, WorkerDoneError, from_environment

ROOT = Path(__file__).parents[2]
PROGRAM = Path(__file__).with_name("distributed_run.py")
TIMEOUT_S = 240


def free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


@contextmanager
def started(*arguments: object, workers: int = 1) -> Iterator[list[subprocess.Popen[str]]]:
    """Start the program, once a worker; whatever is left of it at the end is killed."""
    cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports(workers)]}
    running = []
    try:
        for index in range(workers):
            told = {"cluster": cluster, "task": {"type": "worker", "index": index}}
            surroundings = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(ROOT)}
            surroundings.pop("TF_CONFIG", None)
            if workers > 1:
                surroundings["TF_CONFIG"] = json.dumps(told)
            command = [sys.executable, str(PROGRAM), *map(str, arguments)]
            running.append(
                subprocess.Popen(
                    command, env=surroundings, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
                )
            )
        yield running
    finally:
        for process in running:
            process.kill()
            process.communicate()


def finished(*arguments: object, workers: int = 1) -> list[dict[str, Any]]:
    """Run the program to its end and return what each worker tells."""
    with started(*arguments, workers=workers) as running:
        told = []
        for process in running:
            output, errors = process.communicate(timeout=TIMEOUT_S)
            assert process.returncode == 0, errors[-3000:]
            told.append(json.loads(output.splitlines()[-1]))
        return told


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """50 steps of digits-contrastive in one process."""
    return finished("digits-contrastive", tmp_path_factory.mktemp("alone"))[0]


def test_two_workers_have_the_losses_and_the_weights_of_one(alone: dict[str, Any], tmp_path: Path) -> None:
    first, second = finished("digits-contrastive", tmp_path, workers=2)
    assert [first["share"], second["share"]] == [[0, 1, 2], [1, 1, 2]]
    np.testing.assert_allclose(first["losses"], alone["losses"], rtol=1e-4)
    assert first["losses"][1] < first["losses"][0]
    np.testing.assert_allclose(first["weights"], alone["weights"], rtol=1e-4)
    assert first["weights"] == second["weights"]
    # Only the chief keeps a log and writes.
    assert second["losses"] == []
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint.npz", "log.csv", "tensorboard"}
    assert len(list((tmp_path / "tensorboard").iterdir())) == 1


def test_two_devices_of_one_process_have_the_losses_of_one(alone: dict[str, Any], tmp_path: Path) -> None:
    (both,) = finished("digits-contrastive", tmp_path, "--devices", 2)
    assert both["share"] == [0, 2, 2]
    np.testing.assert_allclose(both["losses"], alone["losses"], rtol=1e-4)
    np.testing.assert_allclose(both["weights"], alone["weights"], rtol=1e-4)


@pytest.mark.slow
def test_workers_agree_on_averages_of_batch_norm_and_stop_and_go_on_together(tmp_path: Path) -> None:
    """Batch norm, dropout, AdamW and clipping; a signal to one worker stops both at one step."""
    unbroken = finished("digits", tmp_path / "unbroken", workers=2)
    assert unbroken[0]["states"] == unbroken[1]["states"]
    stopped = finished("digits", tmp_path / "broken", "--stop-worker", 1, "--stop-after", 30, workers=2)
    assert stopped[0]["stopped"] == stopped[1]["stopped"]
    assert 30 <= stopped[0]["stopped"] < 50
    resumed = finished("digits", tmp_path / "broken", workers=2)
    np.testing.assert_allclose(resumed[0]["losses"], unbroken[0]["losses"], rtol=1e-4)
    np.testing.assert_allclose(resumed[0]["weights"], unbroken[0]["weights"], rtol=1e-4)


@pytest.mark.slow
def test_worker_whose_fellow_dies_says_so_and_ends(tmp_path: Path) -> None:
    with started("digits-contrastive", tmp_path, "--steps", 10**6, workers=2) as running:
        chief, fellow = running
        assert fellow.stdout is not None
        assert fellow.stdout.readline() == "training\n"
        fellow.send_signal(signal.SIGKILL)
        _, errors = chief.communicate(timeout=TIMEOUT_S)
    assert chief.returncode != 0
    assert "a worker is gone; start all again" in errors


@pytest.mark.slow
def test_workers_without_a_common_folder_are_refused(tmp_path: Path) -> None:
    finished("digits-contrastive", tmp_path / "0", "--steps", 5)
    with started("digits-contrastive", tmp_path, "--own-folders", "--steps", 5, workers=2) as running:
        for process in running:
            _, errors = process.communicate(timeout=TIMEOUT_S)
            assert process.returncode != 0
            assert "give all workers one shared folder" in errors


@pytest.mark.parametrize(
    ("task", "place"),
    [({"type": "worker", "index": 1}, (3, 2)), ({"type": "chief", "index": 0}, (3, 0))],
)
def test_chief_comes_before_the_workers(task: dict[str, Any], place: tuple[int, int]) -> None:
    from training.distribute import _place

    cluster = {"chief": ["a:1"], "worker": ["b:1", "c:1"]}
    assert _place(json.dumps({"cluster": cluster, "task": task})) == place


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"cluster": {"worker": ["a:1", "b:1"]}}',
        '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 2}}',
    ],
)
def test_cluster_that_makes_no_sense_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(DistributionError, match="TF_CONFIG"):
        from_environment()


def test_process_alone_computes_all_of_a_batch_and_is_chief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TF_CONFIG", raising=False)
    alone = from_environment()
    assert alone.share == Share(0, 1, 1)
    assert alone.chief
    alone.leave_unless_chief()


def test_worker_other_than_the_chief_leaves_after_training() -> None:
    with pytest.raises(WorkerDoneError, match="worker 1 of 2 is done"):
        Distribution(workers=2, worker=1).leave_unless_chief()


def test_work_that_is_not_shared_is_refused_to_several_workers() -> None:
    Distribution().require_one_worker("it is not shared")
    with pytest.raises(DistributionError, match="TF_CONFIG names 2 workers: it is not shared"):
        Distribution(workers=2).require_one_worker("it is not shared")


class Replicas:
    """What ``share`` asks of a strategy."""

    def __init__(self, count: int) -> None:
        self.num_replicas_in_sync = count


def test_batch_that_replicas_cannot_share_evenly_is_refused() -> None:
    three = Distribution(Replicas(3))
    with pytest.raises(RecipeError, match=r"batches\.subjects: 3 replicas cannot share 10 evenly"):
        three.require_divisible(load_recipe("digits"))
    with pytest.raises(RecipeError, match=r"batches\.size: 3 replicas cannot share 32 evenly"):
        three.require_divisible(load_recipe("digits-contrastive"))
    three.require_divisible(load_recipe("digits", changes={"batches.subjects": 9}))
