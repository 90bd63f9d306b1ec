"""What one hop does to a message: the heads that are written anew, and when a request may be sent again. Pure.

Nothing of a received head is passed on as it came. The request line, Host, framing and Connection are ours; the other
fields are those that the parser believed, without the hop-by-hop ones (RFC 9110 section 7.6.1) and without what we say
about the client ourselves.
"""

from minidist.components.balancer.config import BalancerConfig
from minidist.wire.http1 import CHUNKED, UNTIL_CLOSE, Fields, RequestHead, ResponseHead, status_line

#: RFC 9110 section 9.2.2. TRACE is refused before it gets here.
IDEMPOTENT = frozenset((b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"))

X_FORWARDED = (b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host")
#: What applications believe about a client, so that a client must not write it.
CLIENT_FIELDS = frozenset(
    (*X_FORWARDED, b"x-forwarded-port", b"x-forwarded-prefix", b"x-forwarded-server", b"forwarded", b"x-real-ip")
)


class Forwarding:
    """The rewriting of heads under one configuration; shared by all connections."""

    def __init__(self, config: BalancerConfig) -> None:
        self.x_forwarded = config.forwarded in ("x-forwarded", "both")
        self.forwarded = config.forwarded in ("forwarded", "both")
        self.trusting = config.trust_forwarded
        self.via = b"Via: 1.1 %b\r\n" % config.via.encode() if config.via else b""
        self.upgrades = frozenset(name.lower().encode() for name in config.upgrade)
        self._status_lines: dict[tuple[int, bytes], bytes] = {}

    def dropped_fields(self) -> frozenset[bytes]:
        """The fields the request parser leaves out: what a client must not say, or what `about_client` writes."""
        if not self.trusting:
            return CLIENT_FIELDS
        written: list[bytes] = []
        if self.x_forwarded:
            written += X_FORWARDED
        if self.forwarded:
            written.append(b"forwarded")
        return frozenset(written)

    # --- requests ---------------------------------------------------------------------------------------------------

    def about_client(self, host: bytes, fields: Fields, client_ip: bytes, scheme: bytes) -> bytes:
        """The lines that tell the upstream who asked, and for what."""
        lines = []
        if self.x_forwarded:
            received = dict.fromkeys(X_FORWARDED, b"")
            if self.trusting:
                received = {name: b", ".join(fields.get_all(name)) for name in X_FORWARDED}
            chain = received[b"x-forwarded-for"]
            lines.append(b"X-Forwarded-For: " + (chain + b", " + client_ip if chain else client_ip))
            lines.append(b"X-Forwarded-Proto: " + (received[b"x-forwarded-proto"] or scheme))
            if given_host := received[b"x-forwarded-host"] or host:
                lines.append(b"X-Forwarded-Host: " + given_host)
        if self.forwarded:
            node = b'"[' + client_ip + b']"' if b":" in client_ip else client_ip
            about_host = b'host="%b";' % host if host else b""
            element = b"for=%b;%bproto=%b" % (node, about_host, scheme)
            before = b", ".join(fields.get_all(b"forwarded")) if self.trusting else b""
            lines.append(b"Forwarded: " + (before + b", " + element if before else element))
        return b"".join([line + b"\r\n" for line in lines]) + self.via

    def upgrade_of(self, head: RequestHead) -> bytes:
        """The protocol that this request may switch to, or b""."""
        offered = head.fields.upgrade
        return offered if offered and head.minor and head.length == 0 and offered in self.upgrades else b""

    def request(self, head: RequestHead, host: bytes, about_client: bytes, upgrade: bytes) -> bytes:
        """The head for the upstream, with its empty line."""
        fields = head.fields
        extra = b""
        if head.length == CHUNKED:
            extra = b"Transfer-Encoding: chunked\r\n"
        elif fields.content_length is not None:
            extra = b"Content-Length: %d\r\n" % head.length
        if upgrade:
            extra += b"Connection: upgrade\r\nUpgrade: %b\r\n" % upgrade
        elif fields.te_trailers:
            extra += b"Connection: te\r\nTE: trailers\r\n"
        if fields.expect_continue and head.minor and head.length:
            extra += b"Expect: 100-continue\r\n"
        return b"%b %b HTTP/1.1\r\nHost: %b\r\n%b%b%b\r\n" % (
            head.method, head.target, host, fields.end_to_end, about_client, extra,
        )  # fmt: skip

    # --- responses --------------------------------------------------------------------------------------------------

    def status_line(self, head: ResponseHead) -> bytes:
        key = (head.status, head.reason)
        line = self._status_lines.get(key)
        if line is None:
            if len(self._status_lines) >= 256:  # reasons are free text: an upstream could make up any number of them
                self._status_lines.clear()
            line = self._status_lines[key] = status_line(head.status, head.reason)
        return line

    def response(self, head: ResponseHead, request: RequestHead, length: int, keep: bool) -> bytes:
        """The head for the client, with its empty line; `length` is of the body that follows."""
        fields = head.fields
        extra = b""
        if length > 0:
            extra = b"Content-Length: %d\r\n" % length
        elif length == 0:
            extra = self._no_body(head, request)
        elif request.minor:
            extra = b"Transfer-Encoding: chunked\r\n"
        if not keep:
            extra += b"Connection: close\r\n"
        elif not request.minor:
            extra += b"Connection: keep-alive\r\n"
        return b"%b%b%b%b\r\n" % (self.status_line(head), fields.end_to_end, self.via, extra)

    def _no_body(self, head: ResponseHead, request: RequestHead) -> bytes:
        """Framing fields of a response without content: they speak of the content there would have been."""
        fields = head.fields
        if head.status == 204 or head.status < 200:
            return b""  # RFC 9110 section 8.6
        if fields.content_length is not None:
            return b"Content-Length: %d\r\n" % fields.content_length
        if fields.chunked and request.minor:
            return b"Transfer-Encoding: chunked\r\n"
        return b""

    def interim(self, head: ResponseHead) -> bytes:
        """A 1xx response for the client."""
        return b"%b%b\r\n" % (self.status_line(head), head.fields.end_to_end)

    def switching(self, head: ResponseHead, protocol: bytes) -> bytes:
        """The 101 for the client."""
        return b"%b%bConnection: upgrade\r\nUpgrade: %b\r\n\r\n" % (
            self.status_line(head), head.fields.end_to_end, protocol,
        )  # fmt: skip


def chunked_out(length: int, request: RequestHead) -> bool:
    """Whether a response body goes to the client in chunks. HTTP/1.0 has none: there it ends with the connection."""
    return length in (CHUNKED, UNTIL_CLOSE) and request.minor == 1


def ends_with_connection(length: int, request: RequestHead) -> bool:
    return length in (CHUNKED, UNTIL_CLOSE) and not request.minor


def may_send_again(head: RequestHead, was_sent: bool) -> bool:
    """Whether another upstream may be asked, as long as the answer has not begun.

    What certainly reached nobody may always be sent again; what may have had an effect only if a second effect is
    the same as one (RFC 9110 section 9.2.2).
    """
    return not was_sent or head.method in IDEMPOTENT
