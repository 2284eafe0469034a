"""Routes below an identity, whose name may have slashes: the path is looked at as it was sent.

Servers decode a path before it is matched. The references of an identity ``a/b`` are at
``/identities/a%2Fb/references``, and an identity ``a/references`` is at ``/identities/a%2Freferences``: once
decoded, the one looks like the other. A slash that was not encoded is part of a name too, where no route
below an identity has such a path.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote

from fastapi.routing import APIRoute
from starlette.routing import Match
from starlette.types import Scope

_BELOW_AN_IDENTITY: Final = re.compile(r"/identities/[^/]+/references(/[^/]+)?")


class BelowIdentity(APIRoute):
    """A route below an identity: a ``%2F`` is part of the name, and a ``/`` is not."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Return whether the path as sent is one of this route, with its parameters decoded."""
        match, child = super().matches({**scope, "path": _as_sent(scope)})
        if match is not Match.NONE:
            child["path_params"] = {name: unquote(value) for name, value in child["path_params"].items()}
        return match, child


class NotBelowIdentity(APIRoute):
    """Any other route: it leaves the paths of ``BelowIdentity`` alone."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Return whether the path is one of this route."""
        if _BELOW_AN_IDENTITY.fullmatch(_as_sent(scope)):
            return Match.NONE, {}
        return super().matches(scope)


def _as_sent(scope: Scope) -> str:
    sent: bytes | None = scope.get("raw_path")
    return str(scope["path"]) if sent is None else sent.decode("latin-1").partition("?")[0]
