"""docs/errors.md says what the service does."""

from app.api.error_table import STATUS
from tests.support import bad_requests, errors_page


def test_errors_page_is_what_the_table_says() -> None:
    stale = "docs/errors.md is stale: run python -m tests.support.errors_page"
    assert errors_page.PAGE.read_text(encoding="utf-8") == errors_page.render(), stale


def test_every_code_is_explained() -> None:
    assert set(errors_page.MEANING) == set(STATUS)


def test_every_code_that_a_request_alone_can_cause_has_a_row() -> None:
    circumstances = {
        "busy",
        "outcome_unknown",
        "not_ready",
        "upload_timeout",
        "unauthorized",
        "forbidden",
        "internal_error",
    }
    rows = [*bad_requests.every_row(), *(row for row, _ in bad_requests.face_rows())]
    assert {row.code for row in rows} == set(STATUS) - circumstances
