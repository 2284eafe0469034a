"""The look: what the font can draw, and bytes that depend on the picture alone."""

from __future__ import annotations

from typing import Never

import matplotlib as mpl
import numpy as np
import pytest

from training.pictures.progress import triplet_kinds
from training.pictures.style import CYCLE, RIGHT, WRONG, percent, png, printable, shortened, styled, svg


def contrast_on_white(colour: str) -> float:
    shares = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255.0
    linear = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
    return float(1.05 / (linear @ [0.2126, 0.7152, 0.0722] + 0.05))


@pytest.mark.parametrize("colour", [RIGHT, WRONG])
def test_colours_of_words_can_be_read_on_white(colour) -> None:
    assert contrast_on_white(colour) >= 4.5


def test_letters_that_the_font_lacks_become_boxes() -> None:
    assert printable("한글 abc ü") == "□□ abc ü"


@pytest.mark.parametrize("text", ["a\nb", "a\x00b", "a\u202eb", "a\u2028b"])
def test_what_cannot_be_seen_becomes_a_space(text) -> None:
    assert printable(text) == "a b"


def test_a_short_text_is_not_shortened() -> None:
    assert shortened("ten letter", 10) == "ten letter"


@pytest.mark.parametrize("length", [9, 10])
def test_a_long_text_gets_the_length_asked_for(length) -> None:
    assert len(shortened("eleven lett", length)) == length


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.0, "0 %"), (1.0, "100 %"), (0.0125, "1.25 %"), (0.00004, "0.0040 %"), (0.9999, "99.990 %")],
)
def test_a_rate_is_told_from_none_and_from_all(share, text) -> None:
    assert percent(share) == text


@pytest.mark.parametrize("written", [svg, png])
def test_equal_figures_are_equal_bytes(written) -> None:
    step = np.arange(4)
    first, second = (written(triplet_kinds(step, step + 1.0, step * 2.0, step * 0.5)) for _ in range(2))
    assert first == second


def test_svg_has_no_date() -> None:
    assert b"dc:date" not in svg(triplet_kinds(np.arange(3), np.ones(3), np.ones(3), np.ones(3)))


def test_the_users_settings_neither_matter_nor_change() -> None:
    step = np.arange(3)
    plain = png(triplet_kinds(step, step, step, step))
    with mpl.rc_context({"font.size": 30.0, "axes.facecolor": "red"}):
        assert png(triplet_kinds(step, step, step, step)) == plain
        assert mpl.rcParams["font.size"] == 30.0


def test_a_plot_that_fails_leaves_the_settings_as_they_were() -> None:
    before = dict(mpl.rcParams)

    @styled
    def broken() -> Never:
        raise RuntimeError("no data")

    with pytest.raises(RuntimeError):
        broken()
    assert dict(mpl.rcParams) == before


def test_colours_of_curves_differ() -> None:
    assert len(set(CYCLE)) == len(CYCLE)
