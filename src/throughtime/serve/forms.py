"""Forms with files: `multipart/form-data`."""

from __future__ import annotations

from email.errors import MessageError
from email.parser import BytesHeaderParser
from email.policy import HTTP

from throughtime.serve.refused import Refused

KIND = "multipart/form-data"
MOST = 100  # fields of a form
HEAD = 8192  # bytes before what stands in a field


def fields(kind: str, body: bytes) -> list[tuple[str, bytes]]:
    """The fields of a form, in their order: their names, and what stands in them.

    Args: kind: the request's Content-Type. Raises: Refused where it is no form, or a damaged one.
    Source: RFC 7578, and of the boundary between fields RFC 2046, section 5.1.1.
    """
    about = _head(b"Content-Type: " + kind.encode("latin-1", "replace"))
    boundary = about.get_boundary()
    if about.get_content_type() != KIND or not boundary:
        raise Refused(400, f"content-type: got {kind[:100]!r}; send {KIND} with a boundary")
    border = b"\r\n--" + boundary.encode("latin-1", "replace")
    _, *parts = (b"\r\n" + body).split(border, MOST + 2)
    ends = [part.startswith(b"--") for part in parts]
    if True not in ends:
        raise Refused(400, f"body: the form does not end, or has more than {MOST} fields")
    return [_field(part) for part in parts[: ends.index(True)]]


def _field(part: bytes) -> tuple[str, bytes]:
    head, found, content = part.lstrip(b" \t").partition(b"\r\n\r\n")
    if not found or not head.startswith(b"\r\n") or len(head) > HEAD:
        raise Refused(400, "body: a field of the form has no head")
    about = _head(head[2:])
    name = about.get_param("name", header="content-disposition")
    if not isinstance(name, str):
        raise Refused(400, "body: a field of the form has no name")
    return name, content


def _head(lines: bytes):  # type: ignore[no-untyped-def]
    try:
        return BytesHeaderParser(policy=HTTP).parsebytes(lines + b"\r\n\r\n")
    except (MessageError, ValueError, LookupError) as error:
        raise Refused(400, f"body: the head of a field cannot be read: {error}") from error
