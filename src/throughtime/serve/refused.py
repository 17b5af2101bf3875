"""What cannot be done, as an API answers it."""

from __future__ import annotations

import sys
import traceback
from typing import Any

FAULT = "a fault of throughtime; what the server printed says where"

# status of HTTP -> what kind of error it is, and its name in one word
KINDS = {
    400: ("invalid_request_error", "bad_request"),
    401: ("authentication_error", "unknown_token"),
    403: ("permission_error", "forbidden"),
    404: ("not_found_error", "not_found"),
    405: ("invalid_request_error", "method_not_allowed"),
    408: ("timeout_error", "too_slow"),
    409: ("conflict_error", "conflict"),
    413: ("invalid_request_error", "too_large"),
    429: ("rate_limit_error", "too_many"),
    500: ("server_error", "fault"),
    503: ("server_error", "unavailable"),
}


class Refused(Exception):
    """A request that is not done. The message says what, where, and what to do.

    Args: status: of HTTP. retry_after: in how many seconds the same may succeed; None: it will not.
    """

    def __init__(self, status: int, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status, self.retry_after = status, retry_after


def as_error(status: int, message: str) -> dict[str, Any]:
    """The body of an answer that is an error."""
    kind, code = KINDS.get(status, KINDS[500 if status >= 500 else 400])
    return {"error": {"message": " ".join(message.split()), "type": kind, "code": code}}


def tell_fault(where: str, error: BaseException) -> None:
    """Print where a fault of ours arose; whoever asked is told no more than `FAULT`."""
    print(f"throughtime: a fault of throughtime at {where}:", file=sys.stderr)
    traceback.print_exception(error)
