"""One look for all pictures: colours, sizes, and how a figure becomes bytes.

The colours are those of Okabe and Ito (2008), "Color Universal Design", which people with any common kind of
colour blindness tell apart; nothing is told by colour alone. Figures have a white background, and a page in
dark mode shows them as white cards. Equal figures give equal bytes: no dates, no random identifiers.
"""

from __future__ import annotations

import functools
import io
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any, Final, ParamSpec

import matplotlib.style
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

_Plot = ParamSpec("_Plot")

BLUE: Final = "#0072B2"
VERMILLION: Final = "#D55E00"
GREEN: Final = "#009E73"
ORANGE: Final = "#E69F00"
PURPLE: Final = "#CC79A7"
SKY: Final = "#56B4E9"
BLACK: Final = "#1F2933"
GREY: Final = "#6B7785"

CYCLE: Final = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK)
MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")
DASHES: Final = ("-", "--", "-.", ":")

MATED: Final = BLUE
NONMATED: Final = VERMILLION
RIGHT: Final = "#00664B"
"""Of words and frames: darker than ``GREEN``, so that it has a contrast of at least 4.5 to 1 on white."""
WRONG: Final = "#B23A00"

PNG_DPI: Final = 160

_LOOK: Final[Mapping[str, Any]] = {
    "font.family": ["DejaVu Sans"],
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 8.0,
    "axes.titlecolor": BLACK,
    "axes.labelcolor": BLACK,
    "axes.edgecolor": "#9AA5B1",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.xmargin": 0.02,
    "grid.color": "#E4E7EB",
    "grid.linewidth": 0.8,
    "xtick.color": "#9AA5B1",
    "ytick.color": "#9AA5B1",
    "xtick.labelcolor": BLACK,
    "ytick.labelcolor": BLACK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "text.color": BLACK,
    # Names come from folders and files: a dollar sign in one is no formula.
    "text.parse_math": False,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "figure.facecolor": "white",
    "figure.titlesize": 11.5,
    "figure.titleweight": "bold",
    "figure.constrained_layout.h_pad": 0.06,
    "figure.constrained_layout.w_pad": 0.06,
    "savefig.facecolor": "white",
    # Letters as outlines: the page looks alike where the font is not installed.
    "svg.fonttype": "path",
    "svg.hashsalt": "visavis",
}


def styled(plot: Callable[_Plot, Figure]) -> Callable[_Plot, Figure]:
    """Draw with the project's look, whatever the user's own settings of matplotlib are."""

    @functools.wraps(plot)
    def draw(*args: _Plot.args, **kwargs: _Plot.kwargs) -> Figure:
        with _look():
            return plot(*args, **kwargs)

    return draw


def svg(figure: Figure) -> bytes:
    """Return the figure as SVG without a date."""
    return _saved(figure, "svg", {"Date": None, "Creator": None}, dpi=72)


def png(figure: Figure, *, dpi: int = PNG_DPI) -> bytes:
    """Return the figure as PNG.

    Args:
        figure: Of any size.
        dpi: Pixels an inch.
    """
    return _saved(figure, "png", {"Software": None}, dpi=dpi)


def printable(text: object) -> str:
    r"""Return a text that the font can draw: what it lacks becomes a box, what cannot be seen a space.

    >>> printable("김민수"), printable("a\tb"), printable("Ωmega")
    ('□□□', 'a b', 'Ωmega')
    """
    drawable = _glyphs()
    return "".join(
        " " if unicodedata.category(letter)[0] in "CZ" else letter if ord(letter) in drawable else "□"
        for letter in str(text)
    )


def shortened(text: object, length: int) -> str:
    """Return a printable text of at most ``length`` letters, its middle left out.

    >>> shortened("Alphabet_of_the_Magi/character01", 20)
    'Alphabet_o…aracter01'
    """
    whole = printable(text)
    if len(whole) <= length:
        return whole
    tail = (length - 1) // 2
    return f"{whole[: length - 1 - tail]}…{whole[len(whole) - tail :]}"


def legend_label(text: object, length: int) -> str:
    """Return a shortened text that a legend shows: it leaves out what is empty or begins with "_"."""
    name = shortened(text, length)
    return f" {name}" if not name or name.startswith("_") else name


def percent(share: float) -> str:
    """Return a share in percent, with as many digits as tell it from zero and from one.

    >>> [percent(share) for share in (0.0, 1e-05, 0.00123, 0.0345, 0.5, 0.9876, 0.99996, 1.0)]
    ['0 %', '0.0010 %', '0.12 %', '3.45 %', '50.00 %', '98.76 %', '99.9960 %', '100 %']
    """
    if share in {0.0, 1.0}:
        return f"{share * 100.0:.0f} %"
    margin = min(share, 1.0 - share) * 100.0
    digits = 2
    while digits < 6 and 0.0 < margin < 10.0 ** (1 - digits) * 0.995:
        digits += 1
    return f"{share * 100.0:.{digits}f} %"


def percent_tick(share: float) -> str:
    """Return a round share in percent.

    >>> [percent_tick(share) for share in (0.0, 1e-06, 0.002, 0.125, 0.4, 1.0)]
    ['0 %', '0.0001 %', '0.2 %', '12.5 %', '40 %', '100 %']
    """
    return f"{share * 100.0:.4f}".rstrip("0").rstrip(".") + " %"


def percent_axis(axes: Axes, which: str) -> None:
    """Label the ticks of an axis ("x" or "y") of shares in percent."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_formatter(FuncFormatter(lambda share, _: percent_tick(share)))


def colour(index: int) -> str:
    """Return the colour of the curve numbered from zero."""
    return CYCLE[index % len(CYCLE)]


def dashes(index: int) -> str:
    """Return the line style of the curve numbered from zero."""
    return DASHES[index % len(DASHES)]


def marker(index: int) -> str:
    """Return the marker of the curve numbered from zero."""
    return MARKERS[index % len(MARKERS)]


def _look() -> Any:  # noqa: ANN401  # matplotlib's context manager has no public type
    return matplotlib.style.context(["default", dict(_LOOK)])


@functools.cache
def _glyphs() -> frozenset[int]:
    """Return the code points that the font has."""
    font = font_manager.get_font(font_manager.findfont("DejaVu Sans"))
    return frozenset(font.get_charmap())


def _saved(figure: Figure, kind: str, metadata: Mapping[str, None], *, dpi: int) -> bytes:
    with _look():
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, metadata=dict(metadata), dpi=dpi)
    return buffer.getvalue()
