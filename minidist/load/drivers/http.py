"""HTTP/1.1: one request at a time per connection.

Answers are read by httptools (llhttp) and not by the strict reader of wire/http1: a load generator judges the speed of
servers, and is slower than they are itself (0.3 against 2.1 µs an answer, of about 6 in all).

A status from 200 to 399 is a success; anything else counts as `http-STATUS`. Redirects are not followed. Requests are
bytes made in advance; `{key}` in the URL's path or query is replaced by a key's number per request (`--key-pattern`).
"""

from __future__ import annotations

import base64
import random
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

import httptools

from minidist.load.channel import StreamChannel, Wiring
from minidist.load.driver import INSECURE, READ_WRITE_RATIO, SIZE, TLS_CA, Driver
from minidist.load.keys import KEY_OPTIONS
from minidist.load.plan import Plan
from minidist.runtime.config import KINDS, ConfigError, Kind, Option, Size

_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
#: Methods whose requests say how long their content is even if it is empty (RFC 9110 section 8.6).
_WITH_CONTENT = ("POST", "PUT", "PATCH")
#: Longest response head kept to find out how the body ends, when both do not come in one piece.
_MAX_HEAD_BYTES = 65_536


def _parse_method(text: str) -> str:
    if not re.fullmatch(_TOKEN, text) or text == "CONNECT":
        raise ValueError(text)
    return text


def _parse_header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not re.fullmatch(_TOKEN, name) or not re.fullmatch(r"[^\r\n\0]*", value):
        raise ValueError(text)
    value.encode("latin-1")
    return name, value.strip()


_METHOD = Kind("METHOD", "a method such as GET or POST", _parse_method)
_HEADER = Kind("'NAME: VALUE'", "NAME: VALUE in Latin-1", _parse_header)


class Http(Driver):
    name = "http"
    schemes = ("http", "https")
    tls_schemes = ("https",)
    default_ports = {"http": 80, "https": 443}  # noqa: RUF012
    workloads = {  # noqa: RUF012
        "get": "one request over and over, a GET unless --method says otherwise",
        "mix": "GET and POST in the proportion of --ratio; the POSTs carry --body",
    }
    options = (
        Option("The method of the requests.", name="method", kind=_METHOD, default=""),
        Option("A header field; may be repeated.", name="header", kind=_HEADER, default=()),
        Option("The content of requests, or @FILE to read it from.", name="body", default=""),
        Option("Instead of --body: so many random bytes.", name="body_size", kind=SIZE, default=Size(0)),
        Option(
            "Whether connections are used again. `no` connects anew for each request, and the latency contains it.",
            name="keep_alive", kind=KINDS[bool], default=True,
        ),
        *KEY_OPTIONS, READ_WRITE_RATIO, TLS_CA, INSECURE,
    )  # fmt: skip

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        if self.values["method"] and self.workload == "mix":
            raise ConfigError("--method", self.values["method"], "with workload get")
        if self.values["body"] and self.values["body_size"]:
            raise ConfigError("--body-size", self.values["body_size"], "either --body or --body-size")
        self.body = self._body()
        self.method = self.values["method"] or "GET"

    @property
    def label(self) -> str:
        return self.method.lower() if self.workload == "get" else self.workload

    def _body(self) -> bytes:
        body: str = self.values["body"]
        if body.startswith("@"):
            try:
                with open(body[1:], "rb") as file:
                    return file.read()
            except OSError as error:
                raise ConfigError("--body", body, f"text, or @FILE of a readable file ({error.strerror})") from error
        size = self.values["body_size"] or (1024 if self.workload == "mix" and not body else 0)
        return random.Random(self.plan.seed).randbytes(size) if size else body.encode()

    def channel(self, wiring: Wiring) -> HttpChannel:
        return (HeadChannel if self.method == "HEAD" else HttpChannel)(wiring, self)

    def encoder(self, wiring: Wiring) -> Callable[[], bytes]:
        """What makes the next request."""
        if self.workload == "get":
            return self._one(self.method, self.body, wiring)
        read, write = self._one("GET", b"", wiring), self._one("POST", self.body, wiring)
        reads, writes = self.values["ratio"]
        share, chance = reads / (reads + writes), wiring.rng.random
        return lambda: read() if chance() < share else write()

    def _one(self, method: str, body: bytes, wiring: Wiring) -> Callable[[], bytes]:
        whole = self._request(method, body)
        parts = whole.split(b"{key}") if b"{key}" in self._path else [whole]
        if len(parts) == 1:
            return lambda: whole
        draw = self.draw_key(wiring)
        return lambda: (b"%d" % draw()).join(parts)

    @property
    def _path(self) -> bytes:
        target = self.target
        path = (target.path or "/") + (f"?{target.query}" if target.query else "")
        # Escaped as far as a request line needs it; what was escaped already stays as it is.
        return re.sub(rb"[\x00-\x20\x7f-\xff]", lambda each: b"%%%02X" % each[0][0], path.encode())

    def _request(self, method: str, body: bytes) -> bytes:
        target = self.target
        fields = {"host": ("Host", target.netloc.rpartition("@")[2])}
        fields["user-agent"] = ("User-Agent", "minidist-load")
        fields["accept"] = ("Accept", "*/*")
        if target.username is not None:
            user = f"{unquote(target.username)}:{unquote(target.password or '')}"
            fields["authorization"] = ("Authorization", "Basic " + base64.b64encode(user.encode()).decode())
        if body or method in _WITH_CONTENT:
            fields["content-length"] = ("Content-Length", str(len(body)))
        if not self.values["keep_alive"]:
            fields["connection"] = ("Connection", "close")
        lines = []
        for name, value in self.values["header"]:
            fields.pop(name.lower(), None)  # what the user says replaces ours
            lines.append(f"{name}: {value}\r\n")
        ours = "".join(f"{name}: {value}\r\n" for name, value in fields.values())
        head = ours + "".join(lines)
        return method.encode() + b" " + self._path + b" HTTP/1.1\r\n" + head.encode("latin-1") + b"\r\n" + body


class HttpChannel(StreamChannel):
    def __init__(self, wiring: Wiring, driver: Http) -> None:
        super().__init__(wiring, depth=1)
        self.connect_per_request = not driver.values["keep_alive"]
        self._next_request = driver.encoder(wiring)
        self._parser: Any = None
        self._head = b""
        self._now_s = 0.0
        self._completed = False

    def encode(self, count: int) -> bytes:
        return self._next_request()

    def renewed(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._head = b""

    def data_received(self, data: bytes) -> None:
        self._now_s = self.received(data)
        self._completed = False
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.lost("bad-reply")
            return
        if self._completed:
            self.settled(self._now_s)
        elif len(self._head) < _MAX_HEAD_BYTES and b"\r\n\r\n" not in self._head:
            self._head += data

    def on_message_complete(self) -> None:
        """Called by the parser."""
        status = self._parser.get_status_code()
        if status < 200:  # informational: the answer is still to come
            return
        keep_alive = self._parser.should_keep_alive()
        self._completed = True
        self._head = b""
        if not self.awaited:
            # A server that gives up on an idle connection may say so with a 408.
            keep_alive = False
        elif status < 400:
            self.answered(self._now_s)
        else:
            self.refused(f"http-{status}")
        if not keep_alive or self.connect_per_request:
            self.leave()

    def ended(self) -> bool:
        """A body without length or chunks ends with the connection (RFC 9112 section 6.3, last case)."""
        head, end, _ = self._head.lower().partition(b"\r\n\r\n")
        framed = b"\r\ncontent-length:" in head or b"\r\ntransfer-encoding:" in head
        if not end or framed or not self.awaited:
            return False
        self.on_message_complete()
        return True


class HeadChannel(HttpChannel):
    """The answer to a HEAD ends with its head, whatever that says of a body (RFC 9112 section 6.3, first case). The
    parser cannot know, and would wait for the body; so each answer gets a new one."""

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._completed:
            self._parser = httptools.HttpResponseParser(self)

    def on_headers_complete(self) -> None:
        super().on_message_complete()

    def on_message_complete(self) -> None:
        """What has no body was complete already."""


DRIVER = Http
