"""Documents name only files that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_to_a_file_leads_somewhere(document: Path) -> None:
    links = LINK.findall(document.read_text(encoding="utf-8"))
    assert [link for link in links if not (document.parent / link).exists()] == []


def test_sources_name_only_documents_that_exist() -> None:
    named = set()
    for folder in ("app", "training", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            named.update(re.findall(r"docs/[a-z_]+\.md", path.read_text(encoding="utf-8")))
    assert {name for name in named if not (ROOT / name).is_file()} == set()
