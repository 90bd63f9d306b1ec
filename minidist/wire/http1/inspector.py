"""What faults need to know about HTTP requests (wire/inspection.py): where each ends, its name, how to refuse it.

The name is the method and the path without its query, "GET /items"; the key is the path. A request counts when it is
complete, body included: before that there is nothing that a scripted answer could replace without breaking the framing.
"""

from __future__ import annotations

from minidist.wire.http1.bodies import body_reader
from minidist.wire.http1.build import response
from minidist.wire.http1.heads import RequestParser
from minidist.wire.http1.messages import HttpError, Limits


class HttpInspector:
    """Stateless: every call looks at the buffer from its start."""

    def __init__(self, limits: Limits | None = None) -> None:
        self._parser = RequestParser(limits)

    def requests(self, buffer: bytes) -> list[tuple[str, str, int]]:
        """(name, key, index just past it) of each complete request; ends at what is malformed or unfinished."""
        found: list[tuple[str, str, int]] = []
        at = 0
        try:
            while at < len(buffer):
                parsed = self._parser.parse(buffer, at)
                if parsed is None:
                    break
                head, at = parsed
                body = body_reader(head.length, self._parser.limits)
                if not body.done:
                    _, at = body.feed(buffer, at)
                if not body.done:
                    break
                path = head.target.partition(b"?")[0].decode("latin-1")
                found.append((f"{head.method.decode()} {path}", path, at))
        except HttpError:
            pass  # the server behind us says what is wrong with it
        return found

    def error_reply(self, request: bytes, text: str) -> bytes:
        """A response that stands in for the answer to `request`: 503, or what `text` starts with ("429 slow down")."""
        status, reason = 503, text
        first, _, rest = text.partition(" ")
        if len(first) == 3 and first.isascii() and first.isdigit() and "200" <= first <= "599":
            status, reason = int(first), rest
        body = b"" if request.startswith(b"HEAD ") else f"{reason}\n".encode()
        return response(status, [("Content-Type", "text/plain; charset=utf-8")], body)
