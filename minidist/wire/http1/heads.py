"""Strict parsing of HTTP/1.x heads (RFC 9110, RFC 9112).

A front end and a back end that read one head differently can be made to disagree about where a request ends: request
smuggling. So nothing is repaired here, whatever the RFC lets a recipient tolerate (bare LF, obs-fold, white space
before the colon, repeated Content-Length …): a head is either exactly what the grammar says or it is an HttpError.
Two leniencies, since clients need them and no framing hangs on them: one empty line before a request line
(RFC 9112 section 2.2), and visible ASCII in the target that a URI should have escaped (browsers send "|" and "{").

Speed comes from what repeats. A line that was validated once is kept with its verdict, and so is a whole block of
field lines: the next request of the same client usually differs only in its first line. Both tables are bounded and
simply emptied when full. Only heads that were accepted are remembered.
"""

from __future__ import annotations

import re

from minidist.wire.http1.messages import CHUNKED, Field, Fields, HttpError, Limits, RequestHead, ResponseHead

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_token = re.compile(_TOKEN).fullmatch
_field_line = re.compile(rb"(" + _TOKEN + rb"):([\t\x20-\x7e\x80-\xff]*)").fullmatch
_request_line = re.compile(rb"(" + _TOKEN + rb") ([\x21\x22\x24-\x7e]+) HTTP/1\.([01])").fullmatch
_status_line = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: ([\t\x20-\x7e\x80-\xff]*))?").fullmatch
_any_version = re.compile(rb"\S+ \S+ HTTP/[0-9]\.[0-9]").fullmatch
_absolute_target = re.compile(rb"(?i:https?)://([^/?]*)([/?].*)?").fullmatch
_host = re.compile(rb"(?:[0-9A-Za-z._~-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?").fullmatch
_authority = re.compile(rb"(?:[0-9A-Za-z._~-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}").fullmatch
_number = re.compile(rb"[0-9]{1,18}").fullmatch  # 18 digits stay below 2^63, which other parsers rely on

#: Fields with a meaning for this hop only; each is looked at by `_Facts`.
_FRAMING = frozenset(
    (b"host", b"content-length", b"transfer-encoding", b"connection", b"upgrade", b"te", b"expect", b"http2-settings")
)
#: Never go to the next hop, and say nothing we need (RFC 9110 section 7.6.1, and what HTTP/1.0 proxies invented).
_HOP_BY_HOP = frozenset((b"keep-alive", b"proxy-connection", b"proxy-authenticate", b"proxy-authorization"))

_MAX_CACHED_LINES = 2048
_MAX_CACHED_LINE_BYTES = 256
_MAX_CACHED_BLOCKS = 256
_MAX_CACHED_BLOCK_BYTES = 2048


class _Parser:
    """What request and response heads share: finding the end, and the block of field lines."""

    status = 400  #: of a broken message

    def __init__(self, limits: Limits | None = None, drop: frozenset[bytes] = frozenset()) -> None:
        """`drop`: lower-case names that the owner leaves out of `end_to_end`, because it writes them itself."""
        self.limits = limits or Limits()
        self._not_forwarded = drop | _FRAMING | _HOP_BY_HOP
        self._lines: dict[bytes, Field] = {}
        self._blocks: dict[bytes, Fields] = {}

    def _error(self, text: str, status: int = 400) -> HttpError:
        return HttpError(status if self.status == 400 else self.status, text)

    def _end(self, buffer: bytes, start: int) -> int:
        """Index of the empty line that ends the head; -1 when it is not there yet but still may come."""
        end = buffer.find(b"\r\n\r\n", start)
        if end >= 0:
            if end - start > self.limits.head_bytes:
                raise self._too_large(buffer, start)
            return end
        if len(buffer) - start > self.limits.head_bytes:
            raise self._too_large(buffer, start)
        if buffer.count(b"\n", start) != buffer.count(b"\r\n", start):
            raise self._error("line feed without carriage return")
        return -1

    def _too_large(self, buffer: bytes, start: int) -> HttpError:
        return self._error("head is too large", 431)

    def _fields(self, block: bytes) -> Fields:
        fields = self._blocks.get(block)
        if fields is None:
            fields = self._read_block(block)
            if len(block) <= _MAX_CACHED_BLOCK_BYTES:
                if len(self._blocks) >= _MAX_CACHED_BLOCKS:
                    self._blocks.clear()
                self._blocks[block] = fields
        return fields

    def _read_block(self, block: bytes) -> Fields:
        lines = block.split(b"\r\n") if block else []
        if len(lines) > self.limits.fields:
            raise self._error("too many fields", 431)
        known = self._lines
        items = []
        for line in lines:
            field = known.get(line)
            if field is None:
                field = self._read_line(line)
            items.append(field)
        fields = Fields(tuple(items))
        nominated = self._read_framing(fields)
        hidden = self._not_forwarded
        if nominated:
            hidden = hidden.union(map(same_as, nominated))
        fields.end_to_end = b"".join([field.line + b"\r\n" for field in items if same_as(field.name) not in hidden])
        return fields

    def _read_line(self, line: bytes) -> Field:
        match = _field_line(line)
        if match is None:
            raise self._error(_why_not_a_field(line))
        raw_name, value = match.groups()
        name = raw_name.lower()
        value = value.strip(b" \t")
        field = Field(name, value, b"%b: %b" % (raw_name, value), name in _FRAMING)
        if len(line) <= _MAX_CACHED_LINE_BYTES:
            if len(self._lines) >= _MAX_CACHED_LINES:
                self._lines.clear()
            self._lines[line] = field
        return field

    def _read_framing(self, fields: Fields) -> list[bytes]:
        """Fill in what the block says about this hop; return the names that Connection nominates as hop-by-hop."""
        options: list[bytes] = []
        upgrade = b""
        for field in fields.items:
            if not field.framing:
                continue
            name, value = field.name, field.value
            if name == b"host":
                if fields.host is not None:
                    raise self._error("more than one Host")
                fields.host = value
            elif name == b"content-length":
                # RFC 9110 section 8.6 allows equal repetitions to be folded; nginx and we refuse them.
                if fields.content_length is not None:
                    raise self._error("more than one Content-Length")
                if not _number(value):
                    raise self._error("Content-Length is not a number")
                fields.content_length = int(value)
            elif name == b"transfer-encoding":
                self._read_transfer_encoding(fields, value)
            elif name == b"connection":
                options += self._tokens(value)
            elif name == b"upgrade":
                upgrade = upgrade + b", " + value.lower() if upgrade else value.lower()
            elif name == b"te":
                fields.te_trailers = fields.te_trailers or b"trailers" in self._te_names(value)
            elif name == b"expect":
                if value.lower() != b"100-continue":
                    raise self._error("expectation is not known", 417)
                fields.expect_continue = True
        if fields.chunked and fields.content_length is not None:
            # RFC 9112 section 6.3 item 3: "ought to be handled as an error".
            raise self._error("both Content-Length and Transfer-Encoding")
        fields.close = b"close" in options
        fields.keep_alive = b"keep-alive" in options
        if b"upgrade" in options:
            fields.upgrade = upgrade
        return options

    def _read_transfer_encoding(self, fields: Fields, value: bytes) -> None:
        if fields.chunked:
            raise self._error("more than one Transfer-Encoding")
        if value.lower() != b"chunked":
            codings = self._tokens(value)
            if not codings or b"chunked" in codings[:-1] or b"identity" in codings:
                raise self._error("Transfer-Encoding is malformed")
            raise self._error("transfer coding is not known", 501)  # RFC 9112 section 6.1
        fields.chunked = True

    def _tokens(self, value: bytes) -> list[bytes]:
        tokens = [part.strip(b" \t").lower() for part in value.split(b",")]
        tokens = [token for token in tokens if token]  # RFC 9110 section 5.6.1.2: empty elements are skipped
        for token in tokens:
            if not _token(token):
                raise self._error("malformed list of tokens")
        return tokens

    def _te_names(self, value: bytes) -> list[bytes]:
        return [part.partition(b";")[0].strip(b" \t").lower() for part in value.split(b",")]


class RequestParser(_Parser):
    """Heads of requests. One per listener: its tables of known lines are shared by all connections."""

    def parse(self, buffer: bytes, start: int = 0) -> tuple[RequestHead, int] | None:
        """Read the head at `start`. Returns it with the index just past it, or None when more bytes are needed.

        Raises HttpError with the status to answer; the connection cannot be used any further.
        """
        if buffer.startswith(b"\r\n", start):
            start += 2
        end = self._end(buffer, start)
        if end < 0:
            self._refuse_early(buffer, start)
            return None
        line_end = buffer.find(b"\r\n", start)
        match = _request_line(buffer, start, line_end)
        if match is None or line_end - start > self.limits.target_bytes:
            raise self._bad_request_line(buffer[start:line_end])
        method, target, version = match.groups()
        fields = self._fields(buffer[line_end + 2 : end])
        minor = 1 if version == b"1" else 0
        host = fields.host
        if host is None:
            if minor:
                raise HttpError(400, "Host is missing")
            host = b""
        elif not _host(host):
            raise HttpError(400, "Host is malformed")
        if target[0] != 47:  # "/": the origin form, nearly always
            target, host = _other_target(method, target, host)
        elif method == b"CONNECT":
            raise HttpError(400, "CONNECT takes an authority")
        length = 0
        if fields.chunked:
            if not minor:
                raise HttpError(400, "Transfer-Encoding in HTTP/1.0")
            length = CHUNKED
        elif fields.content_length is not None:
            length = fields.content_length
        persistent = not fields.close if minor else fields.keep_alive and not fields.close
        return RequestHead(method, target, minor, host, fields, length, persistent), end + 4

    def _refuse_early(self, buffer: bytes, start: int) -> None:
        """Other protocols may never send an empty line: refuse them before the time-out does."""
        first = buffer[start : start + 1]
        if first and first != b"\r" and not _token(first):
            raise HttpError(400, "not an HTTP request")
        line_end = buffer.find(b"\r\n", start)
        if line_end >= 0:
            if _request_line(buffer, start, line_end) is None:
                raise self._bad_request_line(buffer[start:line_end])
        elif len(buffer) - start > self.limits.target_bytes:
            raise self._too_large(buffer, start)

    def _too_large(self, buffer: bytes, start: int) -> HttpError:
        if buffer.find(b"\r\n", start, start + self.limits.target_bytes) < 0:
            return HttpError(414, "request target is too long")
        return super()._too_large(buffer, start)

    def _bad_request_line(self, line: bytes) -> HttpError:
        if len(line) > self.limits.target_bytes:
            return HttpError(414, "request target is too long")
        if _any_version(line) and line[-8:] not in (b"HTTP/1.0", b"HTTP/1.1"):
            return HttpError(505, "only HTTP/1.0 and HTTP/1.1 are spoken here")
        return HttpError(400, "malformed request line")


class ResponseParser(_Parser):
    """Heads of responses. Whatever is wrong with one is a 502 to whoever asked through us."""

    status = 502

    def parse(self, buffer: bytes, start: int = 0) -> tuple[ResponseHead, int] | None:
        """Read the head at `start`. Returns it with the index just past it, or None; raises HttpError(502)."""
        end = self._end(buffer, start)
        if end < 0:
            if not b"HTTP/1.".startswith(buffer[start : start + 7]):
                raise HttpError(502, "not an HTTP response")
            return None
        line_end = buffer.find(b"\r\n", start)
        match = _status_line(buffer, start, line_end)
        if match is None:
            raise HttpError(502, "malformed status line")
        version, status_text, reason = match.groups()
        fields = self._fields(buffer[line_end + 2 : end])
        minor = 1 if version == b"1" else 0
        if fields.chunked and not minor:
            raise HttpError(502, "Transfer-Encoding in HTTP/1.0")
        persistent = not fields.close if minor else fields.keep_alive and not fields.close
        return ResponseHead(int(status_text), reason or b"", minor, fields, persistent), end + 4


def same_as(name: bytes) -> bytes:
    """The name that programs behind CGI's rules (WSGI, PHP …) read it as: to them `X_Real_IP` is `X-Real-IP`."""
    return name.replace(b"_", b"-")


def read_trailers(block: bytes, limits: Limits) -> list[Field]:
    """Validate the lines of a trailer section (without its last empty line). Raises HttpError(400)."""
    if not block:
        return []
    lines = block.split(b"\r\n")
    if len(lines) > limits.fields:
        raise HttpError(400, "too many trailer fields")
    fields = []
    for line in lines:
        match = _field_line(line)
        if match is None:
            raise HttpError(400, _why_not_a_field(line))
        name, value = match.group(1), match.group(2).strip(b" \t")
        fields.append(Field(name.lower(), value, b"%b: %b" % (name, value), False))
    return fields


def is_host(text: bytes) -> bool:
    """Whether this is a host with an optional port: no user information, no path, no list (RFC 9110 section 7.2)."""
    return _host(text) is not None


def _other_target(method: bytes, target: bytes, host: bytes) -> tuple[bytes, bytes]:
    """The forms of RFC 9112 section 3.2 that do not start with "/"; returns (target in origin form, host)."""
    if target == b"*":
        if method != b"OPTIONS":
            raise HttpError(400, "only OPTIONS takes *")
        return target, host
    if method == b"CONNECT":
        if not _authority(target):
            raise HttpError(400, "CONNECT takes an authority")
        return target, target
    match = _absolute_target(target)
    if match is None:
        raise HttpError(400, "malformed request target")
    authority, path = match.groups()
    if not _host(authority):
        raise HttpError(400, "malformed authority in the request target")
    if not path:
        path = b"*" if method == b"OPTIONS" else b"/"  # RFC 9112 section 3.2.4
    elif path.startswith(b"?"):
        path = b"/" + path
    return path, authority  # section 3.2.2: the target's host, whatever Host says


def _why_not_a_field(line: bytes) -> str:
    if line[:1] in (b" ", b"\t"):
        return "folded field line"
    name, colon, _ = line.partition(b":")
    if not colon:
        return "field line without colon"
    if name[-1:] in (b" ", b"\t"):
        return "white space before the colon"
    if not _token(name):
        return "malformed field name"
    return "control character in a field value"
