"""The admin port: HTTP/1.1 and JSON, for the launcher, the test plugin, Prometheus and people with curl.

A route is a function, plain or async, from a request to an answer; the table is {(method, path): handler}.

    routes = {("GET", "/healthz"): lambda request: {"ok": True},
              ("POST", "/clock"): advance_clock,                      # request.json() → …
              ("GET", "/events"): lambda request: Stream(log.since(), log.follow)}
    server = AdminServer(routes, Address("127.0.0.1", 0), token="")
    await server.start()

A handler answers with anything JSON, a `Reply` for other content or another status, or a `Stream` of JSON lines; it
raises `AdminError(status, text)` for what it will not do. Every error is `{"error": text}`, never a traceback.

Who may ask: whoever reaches the port, if that is a loopback address; otherwise who has the token. A browser is made to
talk to local ports by any page it shows, so requests are refused whose Host is not this server's own address (a name
that was rebound to 127.0.0.1) and all that carry Origin (scripts of a page).
"""

import asyncio
import hmac
import ipaddress
import json
import urllib.parse
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from minidist.runtime.config import Address
from minidist.runtime.connection import Connection
from minidist.runtime.endpoint import Limits as EndpointLimits
from minidist.runtime.endpoint import Listener
from minidist.runtime.logs import NodeLog
from minidist.wire import http1

MAX_BODY_BYTES = 1024 * 1024  # a long list of faults is some kilobytes
MAX_UNREAD_BYTES = 2 * MAX_BODY_BYTES  # a follower of events that stopped reading
HEAD_LIMITS = http1.Limits(head_bytes=64 * 1024)
NEVER_IDLE = -(10**9)  # sweeps that a stream may be silent: events may be rare

JSON_TYPE = "application/json"
NDJSON_TYPE = "application/x-ndjson"


class AdminError(Exception):
    """What a handler will not do, with the HTTP status that says why."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


@dataclass(slots=True)
class Request:
    method: str
    path: str  #: decoded, without the query
    query: dict[str, str]
    fields: http1.Fields
    body: bytes

    def json(self) -> Any:
        """The body as JSON; an empty body is an empty object. Raises AdminError(400)."""
        if not self.body.strip():
            return {}
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise AdminError(400, f"body is not JSON: {error}") from None


@dataclass(slots=True)
class Reply:
    """An answer that is not plain JSON with status 200."""

    body: bytes
    content_type: str = JSON_TYPE
    status: int = 200


@dataclass(slots=True)
class Stream:
    """JSON values, a line each: those there are, then, with `follow`, more until the client goes.

    `follow(send)` starts calling `send(value)` and returns the function that stops it.
    """

    values: list[Any]
    follow: Callable[[Callable[[Any], object]], Callable[[], object]] | None = None


Answer = Any  # JSON, Reply or Stream
Handler = Callable[[Request], "Answer | Awaitable[Answer]"]
Routes = dict[tuple[str, str], Handler]


def encode(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


class AdminServer:
    """The listener with its routes."""

    def __init__(self, routes: Routes, address: Address, *, token: str = "", log: NodeLog | None = None) -> None:
        self.routes = routes
        self.token = token.encode()
        self.log = log or NodeLog("admin")
        self.parser = http1.RequestParser(HEAD_LIMITS)
        limits = EndpointLimits(max_connections=256, max_buffered_bytes=MAX_UNREAD_BYTES, idle_timeout_s=120.0)
        self._listener: Listener[AdminConnection] = Listener(
            "admin", address, lambda listener: AdminConnection(listener, self), limits=limits, log=self.log
        )
        self._hosts: frozenset[str] = frozenset()

    @property
    def address(self) -> Address:
        return self._listener.address

    async def start(self) -> None:
        """Raises ListenError; ValueError for an address off loopback without a token."""
        if not self.address.is_loopback and not self.token:
            raise ValueError(f"admin port on {self.address} needs a token")
        await self._listener.start()
        self._hosts = frozenset(own_hosts(self.address))

    async def close(self) -> None:
        """Stop listening and drop all connections; handlers under way are cancelled."""
        self._listener.close()

    def refusal(self, request: http1.RequestHead) -> AdminError | None:
        """Why this request is not answered at all."""
        if request.fields.get(b"origin") is not None:
            return AdminError(403, "requests with Origin are refused")
        host = request.host.decode("latin-1").lower()
        if host not in self._hosts and not self._is_own_literal(host):
            return AdminError(403, f"Host is {host!r}, which is not this admin port")
        if self.token:
            given = request.fields.get(b"authorization") or b""
            if not hmac.compare_digest(given, b"Bearer " + self.token):
                return AdminError(401, "the admin token is missing or wrong (Authorization: Bearer TOKEN)")
        return None

    def _is_own_literal(self, host: str) -> bool:
        """On a wildcard address every address of the machine is ours; a name could be anybody's."""
        if self.address.host not in ("0.0.0.0", "::"):
            return False
        name, _, port = host.rpartition(":")
        return port == str(self.address.port) and _is_ip(name.strip("[]"))

    def find(self, method: str, path: str) -> Handler:
        """The handler of a route. Raises AdminError 404 or 405."""
        handler = self.routes.get((method, path))
        if handler is None and method == "HEAD":
            handler = self.routes.get(("GET", path))
        if handler is None:
            allowed = sorted(known for known, known_path in self.routes if known_path == path)
            if allowed:
                raise AdminError(405, f"{path} takes {', '.join(allowed)}")
            raise AdminError(404, f"there is no {path}")
        return handler


def own_hosts(address: Address) -> list[str]:
    """The values of Host that mean this address, in lower case."""
    if address.path:
        return ["localhost"]
    names = [str(address).rpartition(":")[0].lower()]
    if address.is_loopback:
        names += ["localhost", "127.0.0.1", "[::1]"]
    hosts = [f"{name}:{address.port}" for name in names]
    return hosts + names if address.port == 80 else hosts


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


class AdminConnection(Connection):
    """One client: requests are answered one after another, the connection is kept."""

    __slots__ = ("_body", "_buffer", "_head", "_payload", "_server", "_stop_stream", "_task")

    def __init__(self, listener: "Listener[AdminConnection]", server: AdminServer) -> None:
        super().__init__(listener)
        self._server = server
        self._buffer = b""
        self._head: http1.RequestHead | None = None
        self._body: http1.BodyReader | None = None
        self._payload: list[bytes] = []
        self._task: asyncio.Task[None] | None = None
        self._stop_stream: Callable[[], object] | None = None

    def data_received(self, data: bytes) -> None:
        self.touched = True
        if self._stop_stream is not None:
            return  # nothing can follow a stream that has no end
        self._buffer += data
        if self._task is None:
            self._read()
        elif len(self._buffer) > MAX_UNREAD_BYTES:
            self.abort("too much sent ahead")

    def _read(self) -> None:
        try:
            while self._buffer and self._task is None and not self.closing:
                if not self._read_some():
                    return
        except http1.HttpError as error:
            self._answer_error(AdminError(error.status, error.text))
            self.close()

    def _read_some(self) -> bool:
        """Take a head or a piece of a body from the buffer; False when more bytes are needed."""
        if self._body is None:
            parsed = self._server.parser.parse(self._buffer)
            if parsed is None:
                return False
            self._head, end = parsed
            self._buffer = self._buffer[end:]
            if self._head.length > MAX_BODY_BYTES:
                raise http1.HttpError(413, f"body is larger than {MAX_BODY_BYTES} bytes")
            if self._head.fields.expect_continue:
                self.transport.write(http1.status_line(100) + b"\r\n")
            self._body = http1.body_reader(self._head.length, HEAD_LIMITS)
        payload, end = self._body.feed(self._buffer)
        self._buffer = self._buffer[end:]
        self._payload.append(payload)
        if sum(map(len, self._payload)) > MAX_BODY_BYTES:
            raise http1.HttpError(413, f"body is larger than {MAX_BODY_BYTES} bytes")
        if not self._body.done:
            return bool(self._buffer)
        self._dispatch(b"".join(self._payload))
        self._body = None
        self._payload = []
        return True

    def _dispatch(self, body: bytes) -> None:
        head = self._head
        assert head is not None
        try:
            refusal = self._server.refusal(head)
            if refusal is not None:
                raise refusal
            path, _, query = head.target.decode("latin-1").partition("?")
            path = urllib.parse.unquote(path)
            handler = self._server.find(head.method.decode(), path)
            parameters = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
            answer = handler(Request(head.method.decode(), path, parameters, head.fields, body))
            if isinstance(answer, Awaitable):
                self._task = asyncio.ensure_future(self._finish_later(answer))
            else:
                self._answer(answer)
        except Exception as error:
            self._failed(error)

    async def _finish_later(self, answer: Awaitable[Answer]) -> None:
        try:
            self._answer(await answer)
        except Exception as error:
            self._failed(error)
        self._task = None
        self._read()

    def _failed(self, error: Exception) -> None:
        if isinstance(error, AdminError):
            self._answer_error(error)
        else:
            target = self._head.target.decode("latin-1") if self._head else ""
            self._server.log.error("admin request failed", exc_info=error, target=target)
            self._answer_error(AdminError(500, "internal error; the node's log says more"))

    def _answer_error(self, error: AdminError) -> None:
        self._answer(Reply(encode({"error": error.text}), status=error.status))

    def _answer(self, answer: Answer) -> None:
        if self.closing:
            return
        if isinstance(answer, Stream):
            self._answer_stream(answer)
            return
        reply = answer if isinstance(answer, Reply) else Reply(encode(answer))
        head = self._head
        keep = head is not None and head.persistent
        headers = [("Content-Type", reply.content_type)]
        if keep and head is not None and not head.minor:
            headers.append(("Connection", "keep-alive"))
        message = http1.response(reply.status, headers, reply.body, close=not keep)
        if head is not None and head.method == b"HEAD":
            message = message[: len(message) - len(reply.body)]
        self.transport.write(message)
        if not keep:
            self.close()

    def _answer_stream(self, stream: Stream) -> None:
        assert self._head is not None
        chunked = self._head.minor == 1
        lines = [b"Content-Type: " + NDJSON_TYPE.encode(), b"Cache-Control: no-store"]
        lines.append(b"Transfer-Encoding: chunked" if chunked else b"Connection: close")
        values = b"".join(map(encode, stream.values))
        self.transport.write(http1.status_line(200) + b"\r\n".join([*lines, b"", b""]))
        if values and self._head.method != b"HEAD":
            self.transport.write(http1.chunk(values) if chunked else values)
        if stream.follow is None or self._head.method == b"HEAD":
            if chunked and self._head.method != b"HEAD":
                self.transport.write(http1.LAST_CHUNK)
            if not chunked or not self._head.persistent:
                self.close()
            return
        self.idle_rounds = NEVER_IDLE

        def send(value: Any) -> None:
            if not self.closing:
                line = encode(value)
                self.transport.write(http1.chunk(line) if chunked else line)
                buffered = self.transport.get_write_buffer_size()
                if buffered > MAX_UNREAD_BYTES:
                    self.endpoint.cut_off(self, buffered)

        self._stop_stream = stream.follow(send)

    def closed(self, error: Exception | None) -> None:
        if self._stop_stream is not None:
            self._stop_stream()
            self._stop_stream = None
        if self._task is not None:
            self._task.cancel()
