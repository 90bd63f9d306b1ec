"""Messages between the process that was started and its workers: a length of four bytes, then msgpack, over pipes."""

import asyncio
from typing import Any

import msgpack

_LENGTH_BYTES = 4


def pack(message: dict[str, Any]) -> bytes:
    content: bytes = msgpack.packb(message)
    return len(content).to_bytes(_LENGTH_BYTES, "big") + content


async def read(stream: asyncio.StreamReader) -> dict[str, Any] | None:
    """The next message, or None at the end of the stream, also when that comes in the middle of a message."""
    try:
        length = int.from_bytes(await stream.readexactly(_LENGTH_BYTES), "big")
        message: dict[str, Any] = msgpack.unpackb(await stream.readexactly(length))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    return message
