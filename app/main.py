"""The application: routes, error table and middleware around one process's services."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.responses import RedirectResponse

from app import __version__
from app.api import catalogue, error_table, health, images, migration, references
from app.api.middleware import BodyBudget, RequestIdAndLog
from app.api.observability import configure_logging
from app.api.openapi import add_components
from app.context import Context, open_context
from app.settings import Settings, load_settings

DESCRIPTION = """
Face and image verification: enrol **one** photo, then ask *are these two the same?* and *who is this?*

Every decision is `distance <= threshold`, and the threshold comes from an error rate that was measured:
ask for one with `max_fmr` or `max_fpir`, or take the model's default operating point.
"""


def create_app(settings: Settings, context: Context | None = None) -> FastAPI:
    """Return the service.

    Args:
        settings: Limits of request bodies; also what the services are opened with.
        context: Services that are open already; None opens them at start-up and closes them at the end.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        if context is not None:
            app.state.context = context
            yield
            return
        with open_context(settings) as opened:
            app.state.context = opened
            yield

    app = FastAPI(
        title="Visavis",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        redirect_slashes=False,
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
    )
    app.add_api_route("/", lambda: RedirectResponse("/docs"), include_in_schema=False)
    routes = list(app.routes)
    for router in (images.router, references.router, catalogue.router, migration.router, health.router):
        app.include_router(router)
        routes.extend(router.routes)
    error_table.install(app, routes)
    app.add_middleware(
        BodyBudget,
        max_bytes=settings.max_body_bytes,
        total_bytes=settings.upload_memory_bytes,
        timeout_s=settings.upload_timeout_s,
    )
    app.add_middleware(RequestIdAndLog)

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=app.routes,
                license_info=app.license_info,
            )
            keys_required = not settings.insecure and not settings.loopback
            app.openapi_schema = add_components(document, keys_required=keys_required)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
    return app


def app_from_environment() -> FastAPI:
    """Return the service as ``VISAVIS_*`` variables say: the factory that each worker process calls."""
    settings = load_settings()
    configure_logging(settings.log_level)
    return create_app(settings)
