"""The page of a run or of a measurement: one HTML file that needs nothing else, to read, print and hand on.

The page has no date of its own and no random identifiers: an equal run gives an equal file. Sections without
content are left out, and every text is escaped: names of folders and of data sets come from outside.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, get_args

import jinja2
from matplotlib.figure import Figure

from training.pictures.style import percent, png, svg

SVG_LARGEST: Final = 180_000
"""Bytes of a picture as SVG; a larger one, with thousands of dots, is smaller as PNG."""

_WIDE: Final = 6.5
"""A figure wider than this, in inches, has a row of its own."""

Section = Literal["results", "points", "worst", "embeddings", "training"]
"""Sections of the page with pictures."""

_TEMPLATE: Final = "report.html.j2"


@dataclass(frozen=True)
class Result:
    """One measured figure.

    Attributes:
        name: What is measured, "EER".
        value: A share from 0 to 1, shown in percent, or text as it is to be shown.
        lower: The lower end of its 95 % interval; None when it has none.
        upper: The upper end.
        note: On what it was measured: "8,000 mated and 40,000 non-mated trials of 423 subjects".
        required: What it must reach, "at most 1.5 %"; empty when nothing is required.
        key: Whether it is one of the few to show first, in large type.
    """

    name: str
    value: float | str
    lower: float | None = None
    upper: float | None = None
    note: str = ""
    required: str = ""
    key: bool = False

    @property
    def shown(self) -> str:
        """The value as text."""
        return self.value if isinstance(self.value, str) else percent(self.value)

    @property
    def interval(self) -> str:
        """The interval as text, empty when there is none."""
        if self.lower is None or self.upper is None:
            return ""
        return f"{percent(self.lower)} to {percent(self.upper)}"


@dataclass(frozen=True)
class DataSet:
    """Data that the run used.

    Attributes:
        name: As its publishers call it.
        licence: Under which it may be used.
        use: What it was used for: "train, calibration", "test".
        samples: How many; None when not known.
        subjects: How many subjects they show.
        source: Where it comes from, as text.
    """

    name: str
    licence: str
    use: str = ""
    samples: int | None = None
    subjects: int | None = None
    source: str = ""


@dataclass(frozen=True)
class Part:
    """A part of the split: its name, subjects and samples (None when not counted)."""

    name: str
    subjects: int
    samples: int | None = None


@dataclass(frozen=True)
class OperatingPoint:
    """A named threshold with the rates measured there, shares from 0 to 1.

    Attributes:
        name: As callers ask for it.
        threshold: In the unit of the model's metric.
        target: The rate that it promises: "FMR 0.1 %".
        fmr: Measured false match rate.
        fmr_upper95: Upper end of its 95 % interval; None when not known.
        fnmr: Measured false non-match rate; None when not known.
        default: Whether the service decides by it when asked for none.
    """

    name: str
    threshold: float
    target: str
    fmr: float
    fmr_upper95: float | None = None
    fnmr: float | None = None
    default: bool = False

    @property
    def rates(self) -> tuple[str, str, str]:
        """FMR, its upper bound and FNMR as text."""
        known = (self.fmr, self.fmr_upper95, self.fnmr)
        return tuple("" if rate is None else percent(rate) for rate in known)  # type: ignore[return-value]


@dataclass(frozen=True)
class Table:
    """A table of texts: the names of its columns, and its rows."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Command:
    """A command line and what it does."""

    purpose: str
    line: str


@dataclass(frozen=True)
class Shot:
    """A small picture of a sample: its data address, its name, and what it is in a trial."""

    address: str
    name: str
    role: str = ""


@dataclass(frozen=True)
class Comparison:
    """Samples that were compared: the shots, the outcome in words, and whether it is right."""

    shots: Sequence[Shot]
    words: str
    right: bool


@dataclass(frozen=True)
class ShotGroup:
    """Comparisons of one kind, with their title and caption."""

    title: str
    caption: str
    comparisons: Sequence[Comparison]


@dataclass(frozen=True)
class Block:
    """A section of a page that not every page has.

    Attributes:
        name: Its address on the page, and the section of its pictures; letters only.
        title: Its heading.
        lead: A sentence or two below the heading.
        facts: Names and values.
        tables: Shown in order.
        groups: Samples as pictures.
        tail: A sentence or two at the end.
    """

    name: str
    title: str
    lead: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    tables: Sequence[Table] = ()
    groups: Sequence[ShotGroup] = ()
    tail: str = ""


@dataclass(frozen=True)
class _Picture:
    title: str
    caption: str
    alternative: str
    address: str
    wide: bool
    width: int
    height: int


@dataclass
class Report:
    """What the page of a run shows; fill in what there is, then ``write``.

    Attributes:
        title: The recipe.
        subtitle: One sentence on what was trained and how.
        results: In the order of the table.
        points: Operating points, in the order of their thresholds.
        data: Data sets with their licences.
        parts: Of the split.
        split: How it was made: "by subject, each in one part only".
        seed: Of the run, from which the split follows; None when not known.
        configuration: The recipe's, nested as deep as its file; see ``flattened``.
        environment: "TensorFlow": "2.21.0", "cores": 2 and the like.
        training: "time": "42 min", "steps": "3,000" and the like.
        tables: Further tables.
        worst: Worst trials as a table; ``picture(..., section="worst")`` adds one as pictures.
        serving: Command lines that serve and use the bundle.
        kind: What the page is, above its title.
        points_lead: What the operating points are, below their heading.
        point_tables: Operating points that ``points`` has no columns for.
        blocks: Further sections, between the operating points and the rest.
        note: At the end: how the figures were measured, what the intervals resample.
    """

    title: str
    subtitle: str
    results: Sequence[Result] = ()
    points: Sequence[OperatingPoint] = ()
    data: Sequence[DataSet] = ()
    parts: Sequence[Part] = ()
    split: str = ""
    seed: int | None = None
    configuration: Mapping[str, object] = field(default_factory=dict)
    environment: Mapping[str, object] = field(default_factory=dict)
    training: Mapping[str, object] = field(default_factory=dict)
    tables: Sequence[Table] = ()
    worst: Table | None = None
    serving: Sequence[Command] = ()
    kind: str = "training report"
    points_lead: str = (
        "A distance of at most the threshold is a match. FMR is the share of non-mated trials that match, "
        "FNMR the share of mated trials that do not."
    )
    point_tables: Sequence[Table] = ()
    blocks: Sequence[Block] = ()
    note: str = ""
    _pictures: dict[str, list[_Picture]] = field(default_factory=dict)

    def picture(
        self,
        figure: Figure,
        title: str,
        *,
        caption: str,
        alternative: str,
        section: str,
        wide: bool | None = None,
    ) -> None:
        """Add a picture.

        Args:
            figure: Of ``training.pictures``.
            title: Short; the caption goes on from there.
            caption: What it shows and how to read it.
            alternative: What someone who cannot see it should know.
            section: Where it is shown: a ``Section``, or the name of a block.
            wide: Whether it has a row of its own; by its width when None.

        Raises:
            ValueError: There is no such section, or the alternative text is empty.
        """
        if section not in {*get_args(Section), *(block.name for block in self.blocks)}:
            raise ValueError(f"the page has no section {section!r}")
        if not alternative.strip():
            raise ValueError("a picture needs a text for those who cannot see it")
        width, height = (float(inches) for inches in figure.get_size_inches())
        shown = _Picture(
            title,
            caption,
            alternative,
            _embedded(figure),
            width > _WIDE if wide is None else wide,
            round(width * 96),
            round(height * 96),
        )
        self._pictures.setdefault(section, []).append(shown)

    def html(self) -> str:
        """Return the page."""
        environment = jinja2.Environment(
            loader=jinja2.PackageLoader("training.pictures", ""),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )
        return environment.get_template(_TEMPLATE).render(
            report=self,
            settings=flattened(self.configuration),
            pictures={section: tuple(shown) for section, shown in self._pictures.items()},
        )

    def write(self, path: Path) -> None:
        """Write the page, UTF-8, in place of what is there.

        Raises:
            OSError: The folder does not exist or cannot be written to.
        """
        path.write_text(self.html(), encoding="utf-8", newline="\n")


def flattened(configuration: Mapping[str, object], prefix: str = "") -> list[tuple[str, str]]:
    """Return the settings of a nested configuration with their full names.

    >>> flattened({"seed": 1, "loss": {"name": "triplet", "margins": [0.2, 0.4]}, "notes": None})
    [('seed', '1'), ('loss.name', 'triplet'), ('loss.margins', '0.2, 0.4'), ('notes', '-')]
    """
    settings: list[tuple[str, str]] = []
    for name, value in configuration.items():
        if isinstance(value, Mapping):
            settings += flattened(value, f"{prefix}{name}.")
        else:
            settings.append((f"{prefix}{name}", _setting(value)))
    return settings


def _setting(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(_setting(item) for item in value)
    return str(value)


def _embedded(figure: Figure) -> str:
    """Return the figure as a data address: in an image of its own its identifiers meet no others."""
    data, kind = svg(figure), "svg+xml"
    if len(data) > SVG_LARGEST:
        data, kind = png(figure), "png"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
