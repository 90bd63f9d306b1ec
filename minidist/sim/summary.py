"""Bytes of a protocol in a few words, for people who look at what nodes said to each other.

A protocol is recognised by its first bytes: HTTP/1 by its start line, RESP by its type byte, peer frames by their
codec. What is none of these is shown as text where it is printable, else as a count of bytes.
"""

from typing import Any

from minidist.wire.frames import Decoder, FrameError, Kind
from minidist.wire.resp_client import NOTHING, PlainReplyReader, ReplyError
from minidist.wire.resp_plain import ProtocolError

MAX_TEXT = 60
MAX_WORDS = 5
HTTP_METHODS = (b"GET ", b"HEAD ", b"POST ", b"PUT ", b"PATCH ", b"DELETE ", b"OPTIONS ", b"CONNECT ")


def summary(data: bytes) -> str:
    """One line."""
    if data.startswith((b"HTTP/1.", *HTTP_METHODS)):
        return _http(data)
    for read in (_resp, _frames):
        text = read(data)
        if text:
            return _short(text)
    shown = data[:MAX_TEXT].decode("utf-8", "replace").strip()
    return _short(shown) if shown.isprintable() else f"{len(data)} bytes"


def _http(data: bytes) -> str:
    line, _, rest = data.partition(b"\r\n")
    body = rest.partition(b"\r\n\r\n")[2]
    text = line.decode("latin-1").rstrip().removesuffix(" HTTP/1.1").removeprefix("HTTP/1.1 ")
    return _short(f"{text}  {body[:MAX_TEXT].decode('utf-8', 'replace')}" if body else text)


def _resp(data: bytes) -> str:
    if data[:1] not in b"+-:$*_,#%~>(!=":
        return ""
    reader = PlainReplyReader()
    try:
        reader.feed(data)
        values: list[str] = []
        while len(values) < MAX_WORDS and (value := reader.next()) is not NOTHING:
            values.append(_value(value))
    except ProtocolError:
        return ""
    return "; ".join(values)


def _value(value: Any) -> str:
    if isinstance(value, ReplyError):
        return f"-{value}"
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, list):
        return " ".join(_value(each) for each in value[:MAX_WORDS]) + (" …" if len(value) > MAX_WORDS else "")
    if isinstance(value, dict):
        pairs = [f"{_value(key)}={_value(each)}" for key, each in list(value.items())[:MAX_WORDS]]
        return " ".join(pairs) + (" …" if len(value) > MAX_WORDS else "")
    return "nil" if value is None else str(value)


def _frames(data: bytes) -> str:
    try:
        frames = [*Decoder().feed(data)]
    except FrameError:
        return ""
    return "; ".join(f"{Kind(kind).name} {' '.join(map(_value, fields))}" for kind, *fields in frames[:MAX_WORDS])


def _short(text: str) -> str:
    plain = "".join(each if each.isprintable() else "·" for each in text)
    return plain if len(plain) <= MAX_TEXT else plain[: MAX_TEXT - 1] + "…"
