"""The page of a run: valid, self-contained, escaped, equal for equal input, without empty sections."""

from __future__ import annotations

import base64

import numpy as np
import pytest
from matplotlib.figure import Figure

from tests.support.page import Page
from training.pictures import report as module
from training.pictures.progress import triplet_kinds
from training.pictures.report import (
    Block,
    Command,
    Comparison,
    DataSet,
    OperatingPoint,
    Part,
    Report,
    Result,
    Shot,
    ShotGroup,
    Table,
)

HOSTILE = "</style><script>alert('x')</script>\"' onload=x & 김민수"


def triplets():
    return triplet_kinds(np.arange(3), np.array([1.0, 2, 3]), np.ones(3), np.ones(3))


def full(name="omniglot"):
    report = Report(
        name,
        name,
        results=[Result(name, 0.0125, 0.0075, 0.0225, name, name, key=True), Result("speed", "3.6 steps/s")],
        points=[OperatingPoint(name, 0.75, name, 0.00098, 0.0021, 0.0182, default=True)],
        data=[DataSet(name, name, name, 19280, 964, name)],
        parts=[Part(name, 771, 15420), Part("test", 193)],
        split=name,
        seed=20150701,
        configuration={name: {"margin": 0.35, name: name}},
        environment={name: name},
        training={"time": name},
        tables=[Table(name, [name], [[name]])],
        worst=Table(name, [name, name], [[name, name]]),
        serving=[Command(name, name)],
        kind=name,
        points_lead=name,
        point_tables=[Table(name, [name], [[name]])],
        blocks=[
            Block(
                "cohorts",
                name,
                lead=name,
                facts={name: name},
                tables=[Table(name, [name], [[name]])],
                groups=[
                    ShotGroup(
                        name, name, [Comparison([Shot("data:image/png;base64,", name, name)], name, True)]
                    )
                ],
                tail=name,
            )
        ],
        note=name,
    )
    for section in ("results", "points", "worst", "embeddings", "training", "cohorts"):
        report.picture(triplets(), name, caption=name, alternative=name, section=section)
    return report


def test_a_full_page_is_well_formed() -> None:
    page = Page(full().html())
    assert [attributes.get("lang") for attributes in page.all("html")] == ["en"]
    assert len(page.all("h1")) == 1


def test_the_page_needs_nothing_else() -> None:
    html = full().html()
    page = Page(html)
    assert not {"script", "link", "iframe", "object", "embed"} & {tag for tag, _ in page.elements}
    for tag, attributes in page.elements:
        assert (attributes.get("src") or "data:image/").startswith("data:image/"), tag
        assert (attributes.get("href") or "#").startswith("#"), tag
    assert "url(" not in html
    assert "@import" not in html


def test_links_lead_to_sections_of_the_page() -> None:
    page = Page(full().html())
    places = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(places)) == len(places)
    links = {attributes["href"][1:] for attributes in page.all("a")}
    assert links == set(places)


def test_a_hostile_name_is_text_everywhere() -> None:
    page, plain = Page(full(HOSTILE).html()), Page(full().html())
    assert [tag for tag, _ in page.elements] == [tag for tag, _ in plain.elements]
    assert [sorted(attributes) for _, attributes in page.elements] == [
        sorted(attributes) for _, attributes in plain.elements
    ]
    assert page.all("img")[0]["alt"] == HOSTILE
    assert HOSTILE in page.text


def test_equal_reports_are_equal_files(tmp_path) -> None:
    for name in ("first", "second"):
        full().write(tmp_path / name)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_sections_without_content_are_left_out() -> None:
    page = Page(Report("digits", "One sentence.").html())
    assert not page.all("section")
    assert not page.all("table")
    assert not page.all("footer")
    assert [attributes["href"] for attributes in page.all("a")] == ["#content"]
    assert "digits" in page.text


@pytest.mark.parametrize(
    ("content", "section"),
    [
        ({"results": [Result("EER", 0.01)]}, "results"),
        ({"tables": [Table("t", ["a"], [["b"]])]}, "results"),
        ({"points": [OperatingPoint("p", 0.5, "FMR 1 %", 0.01)]}, "points"),
        ({"worst": Table("t", ["a"], [["b"]])}, "worst"),
        ({"environment": {"cores": 2}}, "training"),
        ({"seed": 0}, "data"),
        ({"parts": [Part("train", 3)]}, "data"),
        ({"configuration": {"steps": 5}}, "configuration"),
        ({"serving": [Command("Serve:", "visavis serve")]}, "serving"),
    ],
)
def test_content_has_its_section_and_link(content, section) -> None:
    page = Page(Report("digits", "One sentence.", **content).html())
    assert [attributes["id"] for attributes in page.all("section")] == [section]
    assert {"href": f"#{section}"} in page.all("a")


@pytest.mark.parametrize("section", ["results", "points", "worst", "embeddings", "training"])
def test_a_picture_alone_makes_its_section(section) -> None:
    report = Report("digits", "One sentence.")
    report.picture(triplets(), "Title", caption="Caption.", alternative="Words.", section=section)
    page = Page(report.html())
    assert [attributes["id"] for attributes in page.all("section")] == [section]
    assert [attributes["alt"] for attributes in page.all("img")] == ["Words."]


def test_rates_are_shown_with_their_intervals() -> None:
    text = Page(full().html()).text
    assert {"1.25 %", "0.75 % to 2.25 %", "95 % interval 0.75 % to 2.25 %", "3.6 steps/s"} <= set(text)
    assert {"0.7500", "0.098 %", "0.21 %", "1.82 %", "default"} <= set(text)
    assert {"19,280", "964", "771", "15,420"} <= set(text)
    assert "Split omniglot (seed 20150701)" in text


def test_a_rate_that_is_not_known_is_empty() -> None:
    assert OperatingPoint("p", 0.5, "FMR 1 %", 0.01).rates == ("1.00 %", "", "")


def test_blocks_are_shown_in_their_order_with_their_pictures() -> None:
    report = Report(
        "digits", "One sentence.", blocks=[Block("cohorts", "Cohorts"), Block("failures", "Failed")]
    )
    report.picture(triplets(), "Title", caption="Caption.", alternative="Words.", section="failures")
    page = Page(report.html())
    assert [attributes["id"] for attributes in page.all("section")] == ["cohorts", "failures"]
    assert [a["href"] for a in page.all("a")] == ["#content", "#cohorts", "#failures"]
    assert [attributes["alt"] for attributes in page.all("img")] == ["Words."]


@pytest.mark.parametrize(("right", "kind"), [(True, "right"), (False, "wrong")])
def test_shots_have_their_names_roles_and_a_frame_by_the_outcome(right, kind) -> None:
    shots = [Shot("data:image/png;base64,AA", "ada/1", "probe"), Shot("data:image/png;base64,BB", "bob/2")]
    group = ShotGroup("Closest", "Caption.", [Comparison(shots, "distance 0.5", right)])
    page = Page(Report("digits", "", blocks=[Block("pairs", "Worst pairs", groups=[group])]).html())
    assert [(a["src"][-2:], a["alt"]) for a in page.all("img")] == [("AA", "ada/1"), ("BB", "bob/2")]
    assert {"class": kind} in page.all("figure")
    assert {"ada/1", "probe", "bob/2", "distance 0.5", "Closest"} <= set(page.text)


def test_a_small_picture_is_drawn_with_lines() -> None:
    report = Report("digits", "One sentence.")
    report.picture(triplets(), "T", caption="", alternative="Words.", section="training")
    kind, data = Page(report.html()).all("img")[0]["src"].split(";base64,")
    assert kind == "data:image/svg+xml"
    assert base64.b64decode(data).startswith(b"<?xml")


def test_a_large_picture_is_drawn_with_pixels(monkeypatch) -> None:
    monkeypatch.setattr(module, "SVG_LARGEST", 100)
    report = Report("digits", "One sentence.")
    report.picture(triplets(), "T", caption="", alternative="Words.", section="training")
    kind, data = Page(report.html()).all("img")[0]["src"].split(";base64,")
    assert kind == "data:image/png"
    assert base64.b64decode(data).startswith(b"\x89PNG")


def test_a_picture_without_words_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot see it"):
        Report("digits", "").picture(Figure(), "T", caption="", alternative=" ", section="results")


def test_a_section_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="no section 'elsewhere'"):
        Report("digits", "").picture(Figure(), "T", caption="", alternative="A", section="elsewhere")


def test_all_that_scrolls_can_be_reached_by_keyboard() -> None:
    page = Page(full().html())
    scrolling = [attributes for _, attributes in page.elements if attributes.get("class") == "scroll"]
    assert scrolling
    assert all(attributes["tabindex"] == "0" and attributes["aria-label"] for attributes in scrolling)
