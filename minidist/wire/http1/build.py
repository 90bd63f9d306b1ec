"""Writing whole small messages: what admin ports, health checks, load generators and error replies need."""

from __future__ import annotations

import re
from collections.abc import Iterable

#: RFC 9110 section 15, and those in common use since.
REASONS = {
    100: "Continue", 101: "Switching Protocols", 103: "Early Hints",
    200: "OK", 201: "Created", 202: "Accepted", 204: "No Content", 206: "Partial Content",
    301: "Moved Permanently", 302: "Found", 303: "See Other", 304: "Not Modified", 307: "Temporary Redirect",
    308: "Permanent Redirect", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found",
    405: "Method Not Allowed", 408: "Request Timeout", 409: "Conflict", 411: "Length Required",
    413: "Content Too Large", 414: "URI Too Long", 415: "Unsupported Media Type", 416: "Range Not Satisfiable",
    417: "Expectation Failed",
    421: "Misdirected Request", 422: "Unprocessable Content", 426: "Upgrade Required", 429: "Too Many Requests",
    431: "Request Header Fields Too Large", 500: "Internal Server Error", 501: "Not Implemented", 502: "Bad Gateway",
    503: "Service Unavailable", 504: "Gateway Timeout", 505: "HTTP Version Not Supported",
}  # fmt: skip

_unwritable = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]").search
_unwritable_target = re.compile(r"[^\x21-\x7e]").search

Headers = Iterable[tuple[str, str]]


def status_line(status: int, reason: bytes = b"") -> bytes:
    """With its CRLF. Without a reason the usual one is taken."""
    return b"HTTP/1.1 %d %b\r\n" % (status, reason or REASONS.get(status, "").encode())


def request(method: str, target: str, host: str, headers: Headers = (), body: bytes = b"") -> bytes:
    """A whole request with Content-Length. Raises ValueError for what would break the head."""
    if _unwritable_target(target):
        raise ValueError(f"target cannot be sent: {target!r}")
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", *_lines(headers)]
    if body or method in ("POST", "PUT", "PATCH"):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def response(status: int, headers: Headers = (), body: bytes = b"", *, close: bool = False) -> bytes:
    """A whole response with Content-Length."""
    lines = [f"HTTP/1.1 {status} {REASONS.get(status, '')}", *_lines(headers)]
    if status >= 200 and status != 204:
        lines.append(f"Content-Length: {len(body)}")
    if close:
        lines.append("Connection: close")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def error_response(status: int, text: str) -> bytes:
    """The answer after which a connection is closed: one line of plain text."""
    return response(status, [("Content-Type", "text/plain; charset=utf-8")], f"{text}\n".encode(), close=True)


def _lines(headers: Headers) -> list[str]:
    lines = [f"{name}: {value}" for name, value in headers]
    for line in lines:
        if _unwritable(line):
            raise ValueError(f"header cannot be sent: {line!r}")
    return lines
