"""Asking a node's admin port: `call` in a loop, `call_blocking` and `follow_blocking` for programs without one.

status = await call(Address.parse("127.0.0.1:40321"), "GET", "/status")
call_blocking(address, "POST", "/clock", {"advance": "1h"})
"""

import json
import socket
from collections.abc import Iterator
from typing import Any

from minidist.runtime.config import Address
from minidist.runtime.endpoint import Dialler
from minidist.runtime.http_exchange import ExchangeError, exchange
from minidist.wire import http1

MAX_ANSWER_BYTES = 64 * 1024 * 1024


class AdminUnreachable(OSError):
    """Nobody answered, or not within the time."""


class AdminRefused(Exception):
    """The node answered with an error."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


def build(address: Address, method: str, path: str, body: Any, token: str) -> bytes:
    """The bytes of an admin request."""
    headers = [("Connection", "close"), ("Accept", "application/json")]
    if token:
        headers.append(("Authorization", f"Bearer {token}"))
    payload = b"" if body is None else json.dumps(body).encode()
    return http1.request(method, path, "localhost" if address.path else str(address), headers, payload)


def value_of(response: http1.Response) -> Any:
    """The JSON of an answer, or its text where it is none (`/metrics`). Raises AdminRefused when it is an error."""
    is_json = (response.header("content-type") or "").startswith("application/json")
    text = response.body.decode("utf-8", "replace")
    value = json.loads(text) if is_json else text
    if response.status >= 400:
        raise AdminRefused(response.status, value["error"] if isinstance(value, dict) and "error" in value else text)
    return value


async def call(
    address: Address, method: str, path: str, body: Any = None, *, token: str = "", timeout_s: float = 5.0
) -> Any:
    """One request, its JSON answer. Raises AdminUnreachable, AdminRefused."""
    dialler: Dialler[Any] = Dialler("admin-client")
    payload = build(address, method, path, body, token)
    try:
        response = await exchange(
            dialler, address, method, payload, timeout_s=timeout_s, max_body_bytes=MAX_ANSWER_BYTES
        )
    except ExchangeError as error:
        raise AdminUnreachable(str(error)) from error
    return value_of(response)


def call_blocking(
    address: Address, method: str, path: str, body: Any = None, *, token: str = "", timeout_s: float = 5.0
) -> Any:
    """The same without an event loop; `timeout_s` is for each read, not for the whole. Raises the same."""
    reader = http1.ResponseReader(max_body_bytes=MAX_ANSWER_BYTES)
    reader.expect(method)
    with _connected(address, build(address, method, path, body, token), timeout_s) as stream:
        try:
            while True:
                data = _receive(stream, address)
                response = next(iter(reader.feed(data)), None) if data else reader.eof()
                if response is not None:
                    return value_of(response)
                if not data:
                    raise AdminUnreachable(f"{address} closed the connection without an answer")
        except http1.HttpError as error:
            raise AdminUnreachable(f"{address} does not speak HTTP: {error}") from error


def follow_blocking(address: Address, path: str, *, token: str = "", timeout_s: float = 5.0) -> Iterator[Any]:
    """The values of an answer of JSON lines as they come, until the node is gone. Raises as `call_blocking`.

    `timeout_s` is for connecting and for the head of the answer; the lines may take as long as they like.
    """
    with _connected(address, build(address, "GET", path, None, token), timeout_s) as stream:
        parser = http1.ResponseParser()
        buffer = b""
        while (parsed := parser.parse(buffer)) is None:
            data = _receive(stream, address)
            if not data:
                raise AdminUnreachable(f"{address} closed the connection without an answer")
            buffer += data
        head, end = parsed
        if head.status != 200:
            raise AdminRefused(head.status, head.reason.decode("latin-1"))
        stream.settimeout(None)
        body = http1.body_reader(head.body_length(b"GET"), parser.limits)
        data, line = buffer[end:], b""
        while True:
            payload, _ = body.feed(data)
            *lines, line = (line + payload).split(b"\n")
            yield from map(json.loads, lines)
            data = b"" if body.done else _receive(stream, address)
            if not data:
                return


def _connected(address: Address, payload: bytes, timeout_s: float) -> socket.socket:
    """A blocking connection on which the request has been sent."""
    stream = socket.socket(
        socket.AF_UNIX if address.path else socket.AF_INET6 if ":" in address.host else socket.AF_INET
    )
    stream.settimeout(timeout_s)
    try:
        stream.connect(address.path or (address.host, address.port))
        stream.sendall(payload)
    except OSError as error:
        stream.close()
        raise AdminUnreachable(f"cannot reach {address}: {error.strerror or error}") from error
    return stream


def _receive(stream: socket.socket, address: Address) -> bytes:
    try:
        return stream.recv(65_536)
    except OSError as error:
        raise AdminUnreachable(f"no answer from {address}: {error.strerror or error}") from error
