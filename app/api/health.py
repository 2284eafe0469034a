"""Routes for whoever runs the service: alive, ready, metrics."""

from __future__ import annotations

from fastapi import APIRouter, Response
from fastapi.concurrency import run_in_threadpool

from app import answers
from app.api.dependencies import OPEN, READING, ContextDep
from app.api.error_table import problem
from app.api.observability import render_metrics
from app.api.openapi import errors, open_errors
from app.context import Context
from app.errors import VisavisError
from app.storage.migrate import current_and_head

router = APIRouter(tags=["operation"])


@router.get("/healthz", dependencies=OPEN, responses=open_errors())
async def healthz() -> answers.Alive:
    """Say that the process answers."""
    return answers.Alive(status="ok")


@router.get("/readyz", dependencies=OPEN, response_model=answers.Ready, responses=open_errors("not_ready"))
async def readyz(context: ContextDep) -> answers.Ready | Response:
    """Say that models are loaded, the database answers and its schema is current."""
    try:
        revision = await run_in_threadpool(_check, context)
    except VisavisError as error:
        return problem("not_ready", str(error), headers={"Retry-After": "1"})
    return answers.Ready(
        status="ready",
        models={model.model_id: model.images.provider for model in context.models.every()},
        database="ok",
        schema_revision=revision,
    )


@router.get(
    "/metrics",
    dependencies=READING,
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **errors()},
)
async def metrics() -> Response:
    """Return counters and histograms in Prometheus' text format."""
    body, media_type = await run_in_threadpool(render_metrics)
    return Response(body, headers={"Content-Type": media_type})


def _check(context: Context) -> str:
    context.searches.ping()
    context.database.ping()
    current, head = current_and_head(context.database)
    if current != head:
        raise VisavisError(f"the database schema is at {current or 'nothing'}, this version needs {head}")
    return str(current)
