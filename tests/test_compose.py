"""What Dockerfile, docker-compose.yml and docs/deployment.md name exists, and no secret is in them."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import click
import pytest
import yaml
from sqlalchemy import make_url

from app.cli import visavis
from app.settings import PREFIX, Settings, load_settings
from tests.support.proxy import caddy
from tests.support.service import serving, settings_for

ROOT = Path(__file__).parents[1]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = ("api", "migrate")


def instructions() -> list[tuple[str, str]]:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    text = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", "")
    return [
        (word, rest.strip()) for word, _, rest in (line.partition(" ") for line in text.splitlines()) if word
    ]


def final_stage(name: str) -> list[str]:
    stages: list[list[tuple[str, str]]] = []
    for word, rest in instructions():
        if word == "FROM":
            stages.append([])
        stages[-1].append((word, rest))
    return [rest for word, rest in stages[-1] if word == name]


def image_environment() -> dict[str, str]:
    return dict(pair.split("=", 1) for line in final_stage("ENV") for pair in shlex.split(line))


def health_check() -> list[str]:
    (line,) = final_stage("HEALTHCHECK")
    words: list[str] = json.loads(line[line.index("[") :])
    return words


def proxy_settings() -> dict[str, Any]:
    """Return the proxy's only server, as the proxy itself understands its file."""
    command = [caddy(), "adapt", "--config", str(ROOT / "deploy/Caddyfile"), "--adapter", "caddyfile"]
    adapted = subprocess.run(command, check=True, capture_output=True, timeout=30)
    (server,) = json.loads(adapted.stdout)["apps"]["http"]["servers"].values()
    found: dict[str, Any] = server
    return found


def handler(server: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = [one for route in server["routes"] for one in route["handle"] if one["handler"] == name]
    one: dict[str, Any] = found
    return one


def copied() -> set[str]:
    lines = [rest for word, rest in instructions() if word == "COPY" and not rest.startswith("--from")]
    return {source for line in lines for source in line.split()[:-1]}


def assert_is_a_command(words: list[str]) -> None:
    """Follow the words from group to group; what comes after a command are its arguments."""
    assert words[0] == "visavis"
    command: click.Command = visavis
    for word in words[1:]:
        if not isinstance(command, click.Group):
            break
        found = command.get_command(click.Context(command), word)
        assert found is not None, f"no such command: {' '.join(words)}"
        command = found
    assert not isinstance(command, click.Group), f"no command, but a group: {' '.join(words)}"


def settings_of(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, folder: Path) -> Settings:
    monkeypatch.chdir(folder)  # away from any .env of the checkout
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        monkeypatch.delenv(name)
    for name, value in environment.items():
        if name.startswith(PREFIX):
            monkeypatch.setenv(name, value)
    return load_settings()


@pytest.fixture
def answering() -> Iterator[tuple[HTTPServer, list[str]]]:
    """A server that answers with ``server.status`` and notes the paths it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(self.server.status)  # type: ignore[attr-defined]
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as in the base class
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield server, asked
        server.shutdown()
        thread.join()


def test_build_gets_every_file_that_it_copies_and_that_the_wheel_needs() -> None:
    allowed = {
        line.removeprefix("!/")
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line.startswith("!")
    }
    assert copied() == allowed
    assert [name for name in copied() if not (ROOT / name).exists()] == []
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {*wheel["packages"], *wheel["force-include"]}
    needed |= {project["project"]["readme"], *project["project"]["license-files"], "pyproject.toml"}
    assert needed <= copied()


@pytest.mark.skipif(sys.platform != "linux", reason="the image's sed is GNU's")
def test_image_for_the_cpu_needs_onnxruntime_without_the_gpu(tmp_path: Path) -> None:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (run,) = [rest for word, rest in instructions() if word == "RUN" and "sed" in rest]
    edit = re.search(r"sed .*? pyproject\.toml", run)
    assert edit is not None
    subprocess.run(["sh", "-ec", edit[0]], cwd=tmp_path, check=True)
    before = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    after = tomllib.loads((tmp_path / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "dependencies"
    ]
    runtimes = [need for need in after if need.startswith("onnxruntime")]
    assert len(runtimes) == 1
    assert re.fullmatch(r"onnxruntime[<>=,.\d]+", runtimes[0])
    assert [need for need in before if "onnxruntime" not in need] == [n for n in after if n not in runtimes]


def test_image_starts_the_service_as_a_user_who_is_not_root() -> None:
    (command,) = final_stage("CMD")
    assert json.loads(command) == ["visavis", "serve"]
    assert_is_a_command(json.loads(command))
    (user,) = final_stage("USER")
    assert int(user.split(":")[0]) >= 10000
    assert final_stage("STOPSIGNAL") == ["SIGTERM"]


def test_image_serves_the_network_with_keys_and_keeps_its_state_in_data(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = settings_of(image_environment(), monkeypatch, tmp_path)
    assert not settings.loopback
    assert not settings.insecure
    assert make_url(settings.database_url).database == "/data/visavis.db"
    assert final_stage("EXPOSE") == [str(settings.port)]


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
def test_health_check_of_the_image_tells_ready_from_not_ready(
    answering: tuple[HTTPServer, list[str]], status: int, code: int
) -> None:
    server, asked = answering
    server.status = status  # type: ignore[attr-defined]
    check = health_check()
    assert check[0] == "python3"
    environment = {"VISAVIS_PORT": str(server.server_port), "http_proxy": "http://127.0.0.1:9"}
    done = subprocess.run([sys.executable, *check[1:]], env=environment, check=False, timeout=30)
    assert done.returncode == code
    assert asked == ["/readyz"]


def test_health_check_of_the_image_needs_no_key(tmp_path: Path, angle_models: Path) -> None:
    assert f"'{Settings.model_fields['port'].default}'" in health_check()[-1]
    with serving(settings_for(tmp_path, angle_models, ("angles",), host="0.0.0.0")) as client:
        assert client.get("/readyz").status_code == 200
        assert client.get("/identities").status_code == 401


def test_services_wait_for_one_another_and_volumes_are_declared() -> None:
    assert set(SERVICES) == {"db", "migrate", "api", "proxy"}
    assert SERVICES["migrate"]["depends_on"] == {"db": {"condition": "service_healthy"}}
    assert SERVICES["api"]["depends_on"] == {
        "db": {"condition": "service_healthy"},
        "migrate": {"condition": "service_completed_successfully"},
    }
    assert SERVICES["proxy"]["depends_on"] == {"api": {"condition": "service_healthy"}}
    mounted = [volume for service in SERVICES.values() for volume in service.get("volumes", ())]
    sources = {volume.split(":")[0] for volume in mounted}
    files = {source for source in sources if source.startswith("./")}
    assert sources - files == set(COMPOSE["volumes"])
    assert files == {"./deploy/Caddyfile"}
    assert [name for name in files if not (ROOT / name).is_file()] == []
    assert SERVICES["db"]["healthcheck"]["test"][:2] == ["CMD", "pg_isready"]
    assert SERVICES["migrate"]["restart"] == "no"
    for name in ("db", "api", "proxy"):
        assert SERVICES[name]["restart"] == "unless-stopped"


def test_images_of_others_are_named_by_version() -> None:
    for name in ("db", "proxy"):
        assert re.fullmatch(r"[a-z/]+:[a-z]*\d+(\.\d+)?", SERVICES[name]["image"]), name


def test_replicas_of_the_service_can_stand_side_by_side() -> None:
    api = SERVICES["api"]
    assert not {"ports", "container_name", "hostname"} & set(api)
    assert re.fullmatch(r"\$\{API_REPLICAS:-1\}", api["scale"])
    assert not "API_REPLICAS".startswith(
        PREFIX
    )  # in .env it reaches the service, which refuses what it knows not


def test_two_services_share_an_image_that_one_of_them_builds() -> None:
    assert {SERVICES[name]["image"] for name in OURS} == {"visavis"}
    assert [name for name in OURS if "build" in SERVICES[name]] == ["api"]
    assert (ROOT / SERVICES["api"]["build"] / "Dockerfile").is_file()


@pytest.mark.parametrize("name", OURS)
def test_service_in_compose_uses_the_database_of_compose(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = settings_of(SERVICES[name]["environment"], monkeypatch, tmp_path)
    url = make_url(settings.database_url)
    database = SERVICES["db"]["environment"]
    assert url.host == "db"
    assert (url.username, url.database) == (database["POSTGRES_USER"], database["POSTGRES_DB"])
    assert url.password is None
    assert SERVICES[name]["environment"]["PGPASSWORD"] == database["POSTGRES_PASSWORD"]


def test_compose_publishes_the_port_of_the_proxy_on_this_machine_only(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = settings_of(SERVICES["api"]["environment"], monkeypatch, tmp_path)
    assert [name for name, service in SERVICES.items() if "ports" in service] == ["proxy"]
    assert SERVICES["proxy"]["ports"] == ["127.0.0.1:8000:8000"]
    proxy = proxy_settings()
    assert proxy["listen"] == [":8000"]
    upstreams = handler(proxy, "reverse_proxy")["dynamic_upstreams"]
    assert upstreams["source"] == "a"
    assert (upstreams["name"], upstreams["port"]) == ("api", str(settings.port))
    assert "127.0.0.1:8000/readyz" in SERVICES["proxy"]["healthcheck"]["test"][-1]
    assert not settings.loopback
    assert not settings.insecure
    for name in ("api", "proxy"):
        assert int(SERVICES[name]["stop_grace_period"].removesuffix("s")) > settings.shutdown_timeout_s


def test_proxy_sets_no_bound_below_the_service(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = settings_of(SERVICES["api"]["environment"], monkeypatch, tmp_path)
    proxy = proxy_settings()
    assert {name for name in proxy if "timeout" in name} == {"read_header_timeout"}
    forward = handler(proxy, "reverse_proxy")
    assert set(forward["transport"]) == {"protocol", "dial_timeout", "keep_alive"}
    assert not {"flush_interval", "request_buffers", "response_buffers"} & set(forward)
    assert '"handler": "request_body"' not in json.dumps(proxy)  # where Caddy bounds bodies
    assert settings.max_body_bytes > 50 * 2**20


def test_snapshots_of_galleries_lie_where_the_image_has_a_folder_of_its_user(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = settings_of(SERVICES["api"]["environment"], monkeypatch, tmp_path)
    (volume,) = SERVICES["api"]["volumes"]
    source, _, target = volume.partition(":")
    assert source in COMPOSE["volumes"]
    assert settings.snapshot_dir is not None
    assert settings.snapshot_dir.is_relative_to(target)
    assert f"{target}" in next(
        rest for word, rest in instructions() if word == "RUN" and "install -d" in rest
    )


@pytest.mark.parametrize("name", [*OURS, "proxy"])
def test_service_in_compose_can_change_nothing_outside_its_own_folders(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["tmpfs"] == (["/config", "/data"] if name == "proxy" else ["/tmp"])
    assert service["cap_drop"] == ["ALL"]
    assert service.get("cap_add", []) == (["NET_BIND_SERVICE"] if name == "proxy" else [])
    assert service["security_opt"] == ["no-new-privileges:true"]
    writable = [volume for volume in service.get("volumes", ()) if not volume.endswith(":ro")]
    assert writable == (["galleries:/data"] if name == "api" else [])
    assert "user" not in service


def test_no_password_is_written_down() -> None:
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if re.search("PASSWORD|SECRET|KEY|TOKEN", name):
                assert re.fullmatch(r"\$\{POSTGRES_PASSWORD:\?[^}]+\}", value), name
    assert not re.search("PASSWORD|SECRET|TOKEN", " ".join(image_environment()))


def test_commands_of_compose_and_of_its_documentation_exist() -> None:
    assert_is_a_command(SERVICES["migrate"]["command"])
    names = ("docs/deployment.md", "docs/operations.md", "README.md")
    pages = [(ROOT / name).read_text(encoding="utf-8") for name in names]
    blocks = re.findall(r"```sh\n(.*?)```", "\n".join(pages), re.DOTALL)
    calls = re.findall(
        r"^(?:docker (?:compose exec(?: -T)? api|exec visavis) )?(visavis .*)$", "".join(blocks), re.MULTILINE
    )
    assert len(calls) >= 10
    for call in calls:
        assert_is_a_command(shlex.split(call, comments=True))


def test_settings_that_the_documentation_names_exist() -> None:
    known = {f"{PREFIX}{name}".upper() for name in Settings.model_fields}
    for path in ("docs/deployment.md", "docs/operations.md", "docker-compose.yml", "Dockerfile"):
        named = set(re.findall(rf"\b{PREFIX}[A-Z_]*[A-Z]\b", (ROOT / path).read_text(encoding="utf-8")))
        assert named <= known, path
