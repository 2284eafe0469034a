"""A store that is locked or away gives ``busy`` and nothing else, and the service goes on when it is back."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import event, text

from app.context import open_context
from app.errors import StartupError
from app.storage import migrate
from app.storage.database import Database
from tests.support.images import angle_png
from tests.support.postgres import crash, create_database, postgres_server, restart
from tests.support.service import serving, settings_for
from tests.support.traffic import Traffic, services


@pytest.fixture
def service(url: str, tmp_path: Path, angle_models: Path) -> Iterator[TestClient]:
    settings = settings_for(tmp_path, angle_models, ("angles",), database_url=url, database_timeout_s=0.3)
    with serving(settings) as client:
        yield client


@contextmanager
def locked(url: str) -> Iterator[None]:
    """Hold the lock that every change of the collection ``default`` needs."""
    with (
        closing(Database(url, timeout_s=5, pool_size=1)) as database,
        database.writer.begin() as connection,
    ):
        connection.execute(text("UPDATE collections SET revision = revision"))
        yield


@contextmanager
def migrated_postgresql() -> Iterator[tuple[Any, str]]:
    """A server of the test's own, and the URL of a store on it."""
    with postgres_server() as server:
        url = create_database(server, "visavis")
        with closing(Database(url, timeout_s=5, pool_size=1)) as database:
            migrate.upgrade(database)
        yield server, url


def enrol(service: TestClient, name: str = "ada", headers: dict[str, str] | None = None) -> Any:
    files = {"image": angle_png(0)}
    return service.post("/enroll", data={"identity": name}, files=files, headers=headers)


@pytest.mark.parametrize(
    ("method", "path", "request_"),
    [
        ("POST", "/enroll", {"data": {"identity": "new"}, "files": {"image": angle_png(0)}}),
        ("PATCH", "/identities/ada", {"json": {"metadata": {}}}),
        ("DELETE", "/identities/ada", {}),
        ("DELETE", "/collections/default", {}),
    ],
)
def test_locked_store_answers_changes_with_busy_and_retry_after(
    service: TestClient, url: str, method: str, path: str, request_: Any
) -> None:
    enrol(service)
    with locked(url):
        response = service.request(method, path, **request_)
        assert (response.status_code, response.json()["code"]) == (503, "busy")
        assert int(response.headers["retry-after"]) >= 1
    assert service.get("/identities/ada").json()["revision"] == 1
    assert service.request(method, path, **request_).is_success


def test_locked_store_still_answers_reads(service: TestClient, url: str) -> None:
    enrol(service)
    with locked(url):
        assert service.post("/identify", files={"image": angle_png(0)}).json()["match"] is True
        assert service.get("/identities/ada").status_code == 200
        assert service.get("/readyz").status_code == 200


def test_reason_of_a_busy_store_is_in_the_log(
    service: TestClient, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with locked(url):
        enrol(service)
    assert re.search("locked|timeout", caplog.text)


def test_start_on_a_locked_store_says_that_it_is_locked(tmp_path: Path, angle_models: Path) -> None:
    url = f"sqlite:///{tmp_path / 'visavis.db'}"
    with closing(Database(url, timeout_s=5, pool_size=1)) as database:
        migrate.upgrade(database)
    settings = settings_for(tmp_path, angle_models, ("angles",), database_url=url, database_timeout_s=0.2)
    with locked(url), pytest.raises(StartupError, match="locked"), open_context(settings):
        pass


def test_service_recovers_when_postgresql_comes_back(tmp_path: Path, angle_models: Path) -> None:
    with migrated_postgresql() as (server, url):
        settings = settings_for(tmp_path, angle_models, ("angles",), database_url=url, database_timeout_s=2)
        with serving(settings) as service:
            assert enrol(service).status_code == 201
            server.stop()
            for response in (
                enrol(service, "grace"),
                service.get("/identities"),
                service.post("/identify", files={"image": angle_png(0)}),
                service.get("/readyz"),
            ):
                assert response.status_code == 503
                assert int(response.headers["retry-after"]) >= 1
                assert response.json()["code"] in {"busy", "not_ready"}
            assert service.get("/healthz").status_code == 200
            server.ensure_postgres_running()
            assert service.get("/readyz").status_code == 200
            assert enrol(service, "grace").status_code == 201
            found = service.post("/identify", files={"image": angle_png(0)}).json()
            assert {candidate["identity"] for candidate in found["candidates"]} == {"ada", "grace"}


def test_postgresql_killed_under_two_services_loses_nothing_acknowledged_and_both_recover(
    tmp_path: Path, vector_models: Path
) -> None:
    with migrated_postgresql() as (server, url), services(tmp_path, vector_models, url, 2) as targets:
        traffic = Traffic(targets, seed=5, outages=True)

        def disturb() -> None:
            for number, how in enumerate((signal.SIGKILL, signal.SIGQUIT), 1):
                while traffic.done < 300 * number:
                    time.sleep(0.01)
                crash(server, how)
                time.sleep(0.3)
                restart(server)

        traffic.run(900, disturb=disturb)
        assert traffic.faults() == []
        report = traffic.report()
        assert report["refused"]["busy"] > 0
        assert set(report["refused"]) <= {"busy", "outcome_unknown"}
        assert all(target.server.process.poll() is None for target in targets)


def test_enrolment_whose_commit_was_cut_off_is_unknown_and_its_key_tells(
    postgres: Any, tmp_path: Path, angle_models: Path
) -> None:
    url = create_database(postgres, "unknown_outcome", "current")
    settings = settings_for(tmp_path, angle_models, ("angles",), database_url=url)
    with serving(settings) as service:
        engine = service.app.state.context.database.engine  # type: ignore[attr-defined]
        cut: list[str] = []

        def commit_and_hang_up(connection: Any) -> None:
            if cut and connection.get_execution_options().get("visavis_write"):
                driver = connection.connection.driver_connection
                driver.execute("COMMIT")
                driver.close()
                cut.pop()

        event.listen(engine, "commit", commit_and_hang_up)
        cut.append("now")
        answer = enrol(service)
        assert (answer.status_code, answer.json()["code"]) == (503, "outcome_unknown")
        assert int(answer.headers["retry-after"]) >= 1
        assert service.get("/identities/ada").status_code == 200
        cut.append("now")
        for _ in range(2):
            answer = enrol(service, "grace", {"Idempotency-Key": "k-1"})
            assert answer.status_code == 201
            assert answer.headers["idempotent-replayed"] == "true"
        assert cut == []


def test_store_taken_away_under_a_running_service_is_not_ready(
    spare_url: str, tmp_path: Path, angle_models: Path
) -> None:
    settings = settings_for(tmp_path, angle_models, ("angles",), database_url=spare_url)
    with serving(settings) as service:
        with closing(Database(spare_url, timeout_s=5, pool_size=1)) as database:
            migrate.downgrade(database, "base")
        response = service.get("/readyz")
    assert (response.status_code, response.json()["code"]) == (503, "not_ready")
    assert "nothing" in response.json()["detail"]
