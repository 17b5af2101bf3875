"""Which origins' pages may ask, as their browsers ask it beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from throughtime.serve.answers import Answer
from throughtime.serve.refused import as_error


class Origins(CORSMiddleware):
    """Lets the pages of some origins ask; what is refused is said as all else that is."""

    def __init__(self, app: Any, origins: Sequence[str]) -> None:
        # an origin that was named may ask from wherever its page was loaded
        super().__init__(
            app, allow_origins=origins, allow_methods=["*"], allow_headers=["*"], allow_private_network=True
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        """The answer to a browser that asks whether a page may."""
        found = super().preflight_response(request_headers)
        if found.status_code < 400:
            return found
        origin, method = request_headers["origin"][:100], request_headers["access-control-request-method"][:100]
        words = f"origin: {origin!r}: pages from there may not ask; start the server with --cors for it"
        if self.is_allowed_origin(origin):
            words = f"access-control-request-method: {method!r}: is none of {', '.join(self.allow_methods)}"
        headers = {name: value for name, value in found.headers.items() if not name.startswith("content-")}
        return Answer(as_error(found.status_code, words), found.status_code, headers=headers)
