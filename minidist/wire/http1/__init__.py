"""HTTP/1.0 and HTTP/1.1 on the wire: strict heads, body framing, small messages. Pure."""

from minidist.wire.http1.bodies import LAST_CHUNK, BodyReader, LengthReader, body_reader, chunk, last_chunk
from minidist.wire.http1.build import REASONS, error_response, request, response, status_line
from minidist.wire.http1.client import Response, ResponseReader
from minidist.wire.http1.heads import RequestParser, ResponseParser, is_host
from minidist.wire.http1.inspector import HttpInspector
from minidist.wire.http1.messages import (
    CHUNKED,
    UNTIL_CLOSE,
    Field,
    Fields,
    HttpError,
    Limits,
    RequestHead,
    ResponseHead,
)

__all__ = [
    "CHUNKED", "LAST_CHUNK", "REASONS", "UNTIL_CLOSE", "BodyReader", "Field", "Fields", "HttpError", "HttpInspector",
    "LengthReader", "Limits", "RequestHead", "RequestParser", "Response", "ResponseHead", "ResponseParser",
    "ResponseReader", "body_reader", "chunk", "error_response", "is_host", "last_chunk", "request", "response",
    "status_line",
]  # fmt: skip
