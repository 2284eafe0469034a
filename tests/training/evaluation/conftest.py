"""Image folders that several tests of evaluation share."""

from pathlib import Path

import pytest

from tests.support.images import angle_png


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two runs of three ways: classes at 0, 40 and 80 degrees, each item 5 degrees from its class."""
    folder = tmp_path / "runs"
    for run, order in (("run01", (2, 0, 1)), ("run02", (0, 1, 2))):
        for part in ("training", "test"):
            (folder / run / part).mkdir(parents=True)
        lines = []
        for number, right in enumerate(order, 1):
            (folder / run / "training" / f"class{number:02d}.png").write_bytes(angle_png(40 * (number - 1)))
            (folder / run / "test" / f"item{number:02d}.png").write_bytes(angle_png(40 * right + 5))
            lines.append(f"{run}/test/item{number:02d}.png {run}/training/class{right + 1:02d}.png")
        (folder / run / "class_labels.txt").write_text("\n".join(lines) + "\n")
    return folder
