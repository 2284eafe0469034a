"""MNIST's files, written here and the real ones."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from tests.support.data import data_set
from training.data.errors import DataError, MissingDataError
from training.data.mnist import read_idx, read_mnist


def write_idx(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
    path.write_bytes(gzip.compress(bytes([0, 0, 8, values.ndim]) + sizes + values.tobytes()))


def test_idx_file_keeps_shape_and_order(tmp_path: Path) -> None:
    values = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    write_idx(tmp_path / "v.gz", values)
    assert np.array_equal(read_idx(tmp_path / "v.gz"), values)


def test_digits_are_the_subjects(tmp_path: Path) -> None:
    images = np.arange(10 * 784, dtype=np.int64).reshape(10, 28, 28).astype(np.uint8)
    write_idx(tmp_path / "mnist" / "t10k-images-idx3-ubyte.gz", images)
    write_idx(tmp_path / "mnist" / "t10k-labels-idx1-ubyte.gz", np.arange(10, dtype=np.uint8)[::-1].copy())
    read = read_mnist(tmp_path, "test")
    assert read.labels.tolist() == [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]
    assert read.subjects[9] == "9"
    assert np.array_equal(read.images[..., 0], images)


def test_missing_file_says_how_to_fetch_it(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="visavis data fetch mnist"):
        read_mnist(tmp_path, "train")


@pytest.mark.parametrize(
    "contents",
    [
        b"not gzip",
        gzip.compress(b"\0\0\x08\x01\0\0\0\x03ab"),
        gzip.compress(b"\0\0\x09\x01\0\0\0\x01a"),
        gzip.compress(b"\0\0"),
        gzip.compress(b"\0\0\x08\x01\0\0\0\x03abc" * 100)[:-9],
    ],
    ids=["no gzip", "short", "signed", "empty", "cut off"],
)
def test_damaged_file_is_refused_by_name(tmp_path: Path, contents: bytes) -> None:
    (tmp_path / "v.gz").write_bytes(contents)
    with pytest.raises(DataError, match=r"v\.gz"):
        read_idx(tmp_path / "v.gz")


def test_images_and_labels_of_different_length_are_refused(tmp_path: Path) -> None:
    write_idx(tmp_path / "mnist" / "t10k-images-idx3-ubyte.gz", np.zeros((3, 28, 28), np.uint8))
    write_idx(tmp_path / "mnist" / "t10k-labels-idx1-ubyte.gz", np.zeros(2, np.uint8))
    with pytest.raises(DataError, match="do not fit together"):
        read_mnist(tmp_path, "test")


def test_real_test_part_has_10000_digits() -> None:
    read = read_mnist(data_set("mnist"), "test")
    assert read.images.shape == (10_000, 28, 28, 1)
    assert read.counts.tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert read.labels[:5].tolist() == [7, 2, 1, 0, 4]
