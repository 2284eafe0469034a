"""Write ``docs/errors.md`` from the table of bad requests: ``python -m tests.support.errors_page``."""

from __future__ import annotations

from pathlib import Path

from app.api.error_table import STATUS
from tests.support import bad_requests

PAGE = Path(__file__).parents[2] / "docs" / "errors.md"

MEANING: dict[str, tuple[str, str]] = {
    "invalid_request": (
        "A field is missing, malformed, out of range, unknown or given twice; `errors` lists each field.",
        "Correct the fields named.",
    ),
    "image_unreadable": (
        "The bytes are no image, a damaged one, one too slow to decode, or not base64; `field` names it.",
        "Send a JPEG, PNG, WebP, GIF, TIFF or BMP.",
    ),
    "image_too_large": (
        "An image, or the body as a whole, is over a limit.",
        "Scale the image down, or raise `VISAVIS_MAX_IMAGE_BYTES` or `VISAVIS_MAX_IMAGE_PIXELS`.",
    ),
    "unsupported_media_type": (
        "The body is neither a form nor JSON, or the image is of a kind that is not decoded.",
        "Set the content type; convert the image.",
    ),
    "no_face": ("The detector found no face; `field` names the image.", "Send a photo that shows the face."),
    "multiple_faces": (
        "Exactly one face is wanted and there are several; `boxes` has them.",
        "Crop the photo, or send `face=largest` or `face=central`.",
    ),
    "quality_too_low": (
        "The photo is below the collection's floor for enrolment; `shortfalls` has value and rule.",
        "Take a better photo, or change the collection's policy.",
    ),
    "insufficient_evidence": (
        "The trials behind the model cannot show a rate so small; `smallest_supported` is what they can.",
        "Ask for that rate or a larger one.",
    ),
    "identity_not_found": (
        "The identity is not enrolled in the collection.",
        "Enrol it, or name another collection.",
    ),
    "collection_not_found": ("There is no such collection.", "Create it, or leave the field out."),
    "model_not_found": (
        "The model is not served here.",
        "Name one of `GET /models`, or add it to `VISAVIS_MODELS`.",
    ),
    "reference_not_found": (
        "The identity has no such reference.",
        "See `GET /identities/{identity}/references`.",
    ),
    "not_found": ("There is no such address.", "See `/docs`."),
    "method_not_allowed": (
        "The address has no such method; the header `Allow` lists those it has.",
        "Use one of them.",
    ),
    "upload_timeout": (
        "The body did not arrive within `VISAVIS_UPLOAD_TIMEOUT_S`.",
        "Send it faster, or smaller.",
    ),
    "identity_exists": ("The name is enrolled already.", "Send `replace=true`, or choose another name."),
    "collection_exists": ("The name is taken.", "Choose another, or delete it first."),
    "model_mismatch": (
        "The collection's templates were made by another model, or another build of it.",
        "Leave `model` out, or serve the model that made the collection.",
    ),
    "revision_not_reached": (
        "The store that was read, a replica perhaps, is behind the revision of `If-Revision`, or no change "
        "ever got it; `revision` is the one seen.",
        "Try again, or leave the header out.",
    ),
    "precondition_failed": (
        "The identity is not at the revision of `If-Match`, or not enrolled; `revision` is the one it has.",
        "Read it again and decide anew.",
    ),
    "idempotency_key_reused": (
        "Another request was answered under this `Idempotency-Key`.",
        "Take a new key for each request; repeat one unchanged.",
    ),
    "model_not_served": (
        "The collection is changing between two models and this service has only one of them.",
        "Add the model to `VISAVIS_MODELS`, or send the request to a service that has both.",
    ),
    "migration_state": (
        "The change of model is not where this step of it begins.",
        "Look with `GET /collections/{name}/migration`.",
    ),
    "identities_pending": (
        "Identities would be left without a template; `pending` says how many.",
        "Fill them from photos, or send `drop_pending=true`.",
    ),
    "too_many_references": (
        "The identity has as many references as the collection's policy allows: `max_references`.",
        "Remove one, send `replace=true`, or change the policy.",
    ),
    "last_reference": (
        "It is the only reference of its identity.",
        "Delete the identity, or enrol with `replace=true`.",
    ),
    "too_few_identities": (
        "The collection has too few identities to show a false match rate of 1e-2; `needed` says how many it "
        "takes.",
        "Enrol more people, or keep to the model's own evidence.",
    ),
    "duplicates_suspected": (
        "More pairs of identities are close to each other than chance explains; `closest` names the nearest.",
        "Run `visavis audit --collection NAME` and delete what is double, or send `accept_duplicates=true`.",
    ),
    "busy": (
        "Too much is waiting, or the database is locked or away; nothing was changed.",
        "Send the request again after `Retry-After` seconds.",
    ),
    "outcome_unknown": (
        "The connection to the database broke during the commit: the change was made, or it was not.",
        "Look, or send the request again with the `Idempotency-Key` that it had.",
    ),
    "not_ready": (
        "Only from `/readyz`: the database does not answer or has another schema.",
        "Wait; see the log.",
    ),
    "unauthorized": (
        "An API key is needed and this is none, an unknown or a revoked one.",
        "Send `Authorization: Bearer vv_...`.",
    ),
    "forbidden": (
        "The key's role is `match` and the request would change something.",
        "Use a key of role `full`.",
    ),
    "internal_error": (
        "A fault of the service; the log has it under the `request_id`.",
        "Report it with the log line.",
    ),
}
"""Code: what it means and what to do."""


def render() -> str:
    """Return the page."""
    lines = [
        "# Errors",
        "",
        "<!-- Made by `python -m tests.support.errors_page` from the table that the tests send. -->",
        "",
        "Every error is `application/problem+json` (RFC 9457): `type`, `title`, `status`, `detail`, `code`",
        "and `request_id`, which is also in the header `X-Request-ID` and in the log. Codes are stable;",
        "`detail` is for people and says what to do. A request that gets an error has changed nothing, with",
        "one exception that has a code of its own, `outcome_unknown`: nobody can tell at that moment.",
        "",
        "## Codes",
        "",
        "| code | status | what it means | what to do |",
        "|---|---|---|---|",
    ]
    for code, status in sorted(STATUS.items(), key=lambda item: (item[1], item[0])):
        meaning, remedy = MEANING[code]
        lines.append(f"| `{code}` | {status} | {meaning} | {remedy} |")
    lines += [
        "",
        "## Fields",
        "",
        "The same rules hold in a form and in JSON; where the third column names one, the other cannot",
        "express it or reads it as text.",
        "",
        "| field | what is wrong | in | code |",
        "|---|---|---|---|",
    ]
    for rule in bad_requests.RULES:
        names = ", ".join(f"`{name}`" for name in rule.fields if name.isascii() and name != "colour" and name)
        where = "both" if len(rule.via) == 2 else rule.via[0]
        lines.append(f"| {names or 'any other'} | {rule.what} | {where} | `{rule.code}` |")
    for title, rows in (
        ("Requests as a whole", [*bad_requests.body_rows(), *bad_requests.route_rows()]),
        ("Identities, collections and models", list(bad_requests.stored_rows())),
        ("Headers", list(bad_requests.header_rows())),
        ("Requests that would be good at another time or place", list(bad_requests.state_rows())),
        ("Faces", [row for row, _ in bad_requests.face_rows()]),
    ):
        lines += ["", f"## {title}", "", "| what is wrong | routes | code |", "|---|---|---|"]
        grouped: dict[tuple[str, str], list[str]] = {}
        for row in rows:
            path = row.path.partition("?")[0]
            for prefix, pattern in (
                ("/identities/", "{identity}"),
                ("/collections/", "{name}"),
                ("/models/", "{id}"),
            ):
                if path.startswith(prefix):
                    below = path.removeprefix(prefix).partition("/")[2]
                    if below.startswith("references/"):
                        below = "references/{reference_id}"
                    path = prefix + pattern + (f"/{below}" if below else "")
            route = f"{row.method} {path}"
            routes = grouped.setdefault((row.what, row.code), [])
            if route not in routes:
                routes.append(route)
        for (what, code), routes in grouped.items():
            shown = (
                "any"
                if what.startswith(("no such route", "a method"))
                else ", ".join(f"`{r}`" for r in routes)
            )
            lines.append(f"| {what} | {shown} | `{code}` |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
