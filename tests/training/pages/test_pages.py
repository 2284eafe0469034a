"""``visavis evaluate ... --html``: the page of each command, and what is refused before the work."""

import base64
import importlib.util
import io
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import pytest
from PIL import Image

from tests.support.cli import visavis
from tests.support.images import angle_png
from tests.support.page import Page

HOSTILE = "Bob <i>&"


@pytest.fixture
def lfw(tmp_path: Path) -> Path:
    """Four subjects with two images each; Dan's look like two people, Cy's second is none."""
    angles = {"Ada": (0, 10), HOSTILE: (25, 33), "Cy": (50, None), "Dan": (70, 10)}
    folder = tmp_path / "lfw"
    for name, degrees in angles.items():
        (folder / name).mkdir(parents=True)
        for number, angle in enumerate(degrees, 1):
            data = b"no image" if angle is None else angle_png(angle)
            (folder / name / f"{name}_{number:04d}.png").write_bytes(data)
    lines = ["2\t3"]
    for mated, nonmated in (("Ada", "Cy"), (HOSTILE, "Dan")):
        lines += [f"{mated}\t1\t2", f"{nonmated}\t1\t2", "Dan\t1\t2"]
        lines += [f"{mated}\t1\t{nonmated}\t1", f"{mated}\t2\t{nonmated}\t1", "Ada\t1\tDan\t1"]
    (folder / "pairs.txt").write_text("\n".join(lines))
    return folder


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """Ten subjects 9 degrees apart with three images each."""
    folder = tmp_path / "people"
    for subject in range(10):
        (folder / f"s{subject}").mkdir(parents=True)
        for number in range(3):
            (folder / f"s{subject}" / f"{number}.png").write_bytes(angle_png(9 * subject + number))
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """One run of three ways whose second item is nearer to class 3, at 80 degrees, than to its own, at 40."""
    folder = tmp_path / "runs" / "run01"
    for part in ("training", "test"):
        (folder / part).mkdir(parents=True)
    lines = []
    for number, item in enumerate((3, 66, 75), 1):
        (folder / "training" / f"class{number:02d}.png").write_bytes(angle_png(40 * (number - 1)))
        (folder / "test" / f"item{number:02d}.png").write_bytes(angle_png(item))
        lines.append(f"run01/test/item{number:02d}.png run01/training/class{number:02d}.png")
    (folder / "class_labels.txt").write_text("\n".join(lines))
    return tmp_path / "runs"


def verification(lfw: Path, models: Path) -> list[object]:
    return [
        *("evaluate", "verification", "--model", "angles", "--models-dir", models),
        *("--images", lfw, "--pairs", lfw / "pairs.txt"),
    ]


def of(command: str, models: Path, *options: object) -> list[object]:
    return ["evaluate", command, "--model", "angles", "--models-dir", models, *options]


def written(arguments: list[object], file: Path) -> Page:
    result = visavis(*arguments, "--html", file)
    assert result.exit_code == 0, result.output
    assert f"page: {file}" in result.stderr
    html = file.read_text(encoding="utf-8")
    page = Page(html)
    # It needs nothing else.
    assert not {"script", "link", "iframe", "object", "embed"} & {tag for tag, _ in page.elements}
    for _, attributes in page.elements:
        assert (attributes.get("src") or "data:image/").startswith("data:image/")
        assert (attributes.get("href") or "#").startswith("#")
    places = [a["id"] for _, a in page.elements if "id" in a]
    assert len(set(places)) == len(places)
    assert {a["href"] for a in page.all("a")} == {f"#{place}" for place in places}
    assert all(a["alt"] for a in page.all("img"))
    assert [path.name for path in file.parent.iterdir() if path.name.endswith(".part")] == []
    return page


def test_page_of_verification_shows_rates_curves_failures_and_worst_pairs(
    lfw: Path, tmp_path: Path, angle_models: Path
) -> None:
    page = written(verification(lfw, angle_models), tmp_path / "page.html")
    assert page.sections() == ["results", "points", "pairs", "failures", "measured"]
    text = " ".join(page.text)
    assert "angles: 1:1 verification on lfw" in page.text
    assert "Accuracy by fold, as the list lays them out" in page.text
    assert "fmr-1e-2 (default)" in page.text
    # Cy's second image is no image: one trial was not compared.
    assert "1 of 8 images (12.50 %) could not be embedded: 1 image_unreadable." in page.text
    assert "Cy/Cy_0002.png" in page.text
    assert "less 1 with a failed image" in text
    # Dan is 60 degrees from himself, but for the rounding of pixels.
    farthest = next(words for words in page.text if words.startswith("distance "))
    assert float(farthest.split()[1].rstrip(":")) == pytest.approx(1.0, abs=0.01)
    assert farthest.endswith(": non-match, wrong")
    assert {"Dan_0001", "Dan_0002", f"{HOSTILE}_0001"} <= set(page.text)
    assert {"pairs.txt", "central", "euclidean", "angles 1"} <= set(page.text)
    assert "i" not in {tag for tag, _ in page.elements}


def test_page_of_verification_shows_cohorts_when_given(tmp_path: Path, angle_models: Path) -> None:
    names = [f"s{index:02d}" for index in range(62)]
    for index, name in enumerate(names):
        (tmp_path / name).mkdir()
        for number in (1, 2):
            (tmp_path / name / f"{name}_{number:04d}.png").write_bytes(angle_png(index + number))
    lines = [f"{name} 1 2" for name in names] + [f"{a} 1 {b} 1" for a, b in combinations(names, 2)]
    (tmp_path / "pairs.txt").write_text("\n".join(lines))
    (tmp_path / "sides.tsv").write_text(
        "".join(f"{n}\t{'low' if i < 31 else 'high'}\n" for i, n in enumerate(names))
    )
    arguments = [*verification(tmp_path, angle_models), "--cohorts", tmp_path / "sides.tsv"]
    page = written(arguments, tmp_path / "page.html")
    assert page.sections() == ["results", "points", "cohorts", "pairs", "measured"]
    assert {"low", "high", "FMR within", "sides.tsv"} <= set(page.text)
    assert any(a["alt"] == "Rates of 2 cohorts as in the table." for a in page.all("img"))


def test_page_of_one_shot_shows_the_curve_the_runs_and_the_errors(
    runs: Path, tmp_path: Path, angle_models: Path
) -> None:
    page = written(of("oneshot", angle_models, "--runs", runs), tmp_path / "page.html")
    assert page.sections() == ["results", "runs", "distances", "trials", "measured"]
    assert "1 errors in 3 trials, 0 of them ties; interval by run" in page.text
    assert "run01" in page.text
    # Item 2 is 26 degrees from its class and 14 from the third.
    worst = next(words for words in page.text if words.startswith("right at "))
    _, _, right, _, _, answer, outcome = worst.replace(",", "").replace(":", "").split()
    assert float(right) == pytest.approx(0.4499, abs=0.01)
    assert float(answer) == pytest.approx(0.2437, abs=0.01)
    assert outcome == "wrong"
    assert {"run01/test/item02", "run01/training/class03", "probe", "answer"} <= set(page.text)
    # Nine thumbnails of three trials, the curve, and the histogram.
    assert len(page.all("img")) == 11


def test_page_of_nway_shows_each_number_of_candidates(
    people: Path, tmp_path: Path, angle_models: Path
) -> None:
    options = ("--images", people, "--ways", "2..5", "--trials", 20)
    page = written(of("nway", angle_models, *options), tmp_path / "page.html")
    assert page.sections() == ["results", "distances", "trials", "measured"]
    assert "N-way error, all subjects; intervals by subject of the probe" in page.text
    assert {"2 to 5", "20", "10 subjects; drawers unknown"} <= set(page.text)


def test_page_of_one_number_of_candidates_has_no_curve(
    people: Path, tmp_path: Path, angle_models: Path
) -> None:
    options = ("--images", people, "--ways", "5", "--trials", 20)
    page = written(of("nway", angle_models, *options), tmp_path / "page.html")
    assert not [a for a in page.all("img") if "finds the right one" in str(a["alt"])]


def test_page_of_identification_shows_curves_and_worst_searches(
    people: Path, tmp_path: Path, angle_models: Path
) -> None:
    page = written(of("identification", angle_models, "--images", people), tmp_path / "page.html")
    assert page.sections() == ["results", "points", "searches", "measured"]
    assert {"FPIR 0.1", "max_fpir 0.1", "fmr-1e-2", "5 subjects, one image each"} <= set(page.text)
    assert "30 images of subjects not enrolled cannot show a rate of 0.01" in page.text
    worst = page.text[page.text.index("Mated searches whose reference is farthest") :]
    # Two degrees are the most within a subject, and seven the least between two.
    assert worst[worst.index("reference") + 2].startswith("distance 0.03")
    assert worst[worst.index("nearest") + 2].startswith("distance 0.12")
    probe, reference = worst[worst.index("probe") + 1], worst[worst.index("reference") + 1]
    assert probe.partition("/")[0] == reference.partition("/")[0]
    assert probe != reference


def test_thumbnails_are_the_images_made_small(lfw: Path, tmp_path: Path, angle_models: Path) -> None:
    picture = Image.new("L", (800, 400))
    picture.paste(255, (400, 0, 800, 400))
    picture.save(lfw / "Dan" / "Dan_0001.png")
    page = written(verification(lfw, angle_models), tmp_path / "page.html")
    (shown, *_) = [a["src"] for a in page.all("img") if a["alt"] == "Dan_0001"]
    assert shown is not None
    with Image.open(io.BytesIO(base64.b64decode(shown.partition(",")[2]))) as small:
        assert small.size == (236, 118)
        left, right = (small.convert("L").getpixel((x, 60)) for x in (50, 190))
        assert left == pytest.approx(0, abs=8)
        assert right == pytest.approx(255, abs=8)


def test_page_takes_the_place_of_the_one_before(lfw: Path, tmp_path: Path, angle_models: Path) -> None:
    (tmp_path / "page.html").write_text("before")
    written(verification(lfw, angle_models), tmp_path / "page.html")


def test_page_that_cannot_be_written_leaves_the_one_before(
    lfw: Path, tmp_path: Path, angle_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "page.html").write_text("before")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    result = visavis(*verification(lfw, angle_models), "--html", tmp_path / "page.html")
    assert result.exit_code == 1
    assert f"html: {tmp_path / 'page.html'} cannot be written: No space left on device" in result.stderr
    assert (tmp_path / "page.html").read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lfw", "page.html"]


def every_command(folder: Path, models: Path) -> list[list[object]]:
    (folder / "pairs.txt").write_text("")
    return [
        verification(folder, models),
        of("oneshot", models, "--runs", folder),
        of("nway", models, "--images", folder),
        of("identification", models, "--images", folder),
    ]


@pytest.mark.parametrize("index", range(4))
def test_file_that_could_not_be_written_is_refused_before_the_work(
    tmp_path: Path, angle_models: Path, index: int
) -> None:
    # The folder holds no images either: the page is looked at first.
    arguments = every_command(tmp_path, angle_models)[index]
    result = visavis(*arguments, "--html", tmp_path / "absent" / "page.html")
    assert result.exit_code == 1
    assert f"html: there is no folder {tmp_path / 'absent'}; make it first" in result.stderr
    result = visavis(*arguments, "--html", tmp_path)
    assert f"html: {tmp_path} is a folder; name a file in it" in result.stderr


@pytest.mark.parametrize("index", range(4))
def test_without_matplotlib_the_option_says_what_to_install_before_the_work(
    tmp_path: Path, angle_models: Path, monkeypatch: pytest.MonkeyPatch, index: int
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "matplotlib" else find(name, *rest)
    )
    arguments = every_command(tmp_path, angle_models)[index]
    result = visavis(*arguments, "--html", tmp_path / "page.html")
    assert result.exit_code == 1
    assert "extra_missing: --html needs matplotlib: pip install 'visavis[train]'" in result.stderr
    assert not (tmp_path / "page.html").exists()


def test_page_is_drawn_without_tensorflow_and_nothing_else_without_matplotlib(
    lfw: Path, tmp_path: Path, angle_models: Path
) -> None:
    code = (
        "import sys; from app.cli import visavis\n"
        "arguments = sys.argv[1:]\n"
        "visavis.main(arguments[:-2], standalone_mode=False); plain = set(sys.modules)\n"
        "visavis.main(arguments, standalone_mode=False)\n"
        "assert 'matplotlib' not in plain and 'jinja2.environment' not in plain, 'without --html'\n"
        "assert 'matplotlib' in sys.modules, 'with --html'\n"
        "assert not {'tensorflow', 'keras'} & set(sys.modules), 'with --html'\n"
    )
    arguments = [*map(str, verification(lfw, angle_models)), "--html", str(tmp_path / "page.html")]
    run = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "page.html").exists()
