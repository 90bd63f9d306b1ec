"""A small client for what is not measured: filling servers, asking them, emptying them. Blocking, pipelined."""

import itertools
import socket
from collections.abc import Iterable
from typing import Any

from lab.servers import Running

from minidist.wire.resp import encode_command
from minidist.wire.resp_client import NOTHING, ReplyError, ReplyReader

TIMEOUT_S = 60
BATCH = 500

Word = bytes | str | int


class Client:
    """One connection. Raises RuntimeError for a reply that is an error."""

    def __init__(self, server: Running) -> None:
        self.socket = socket.create_connection((server.host, server.port), timeout=TIMEOUT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = ReplyReader()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def ask(self, *words: Word) -> Any:
        self.socket.sendall(encode(words))
        return self.reply()

    def reply(self) -> Any:
        while (reply := self._reader.next()) is NOTHING:
            data = self.socket.recv(65_536)
            if not data:
                raise RuntimeError("the server closed the connection")
            self._reader.feed(data)
        if isinstance(reply, ReplyError):
            raise RuntimeError(str(reply))  # noqa: TRY004 - no type is wrong
        return reply

    def send_all(self, commands: Iterable[tuple[Word, ...]]) -> None:
        """Many commands whose replies do not matter."""
        rest = iter(commands)
        while batch := list(itertools.islice(rest, BATCH)):
            self.socket.sendall(b"".join(map(encode, batch)))
            for _ in batch:
                self.reply()


def encode(words: Iterable[Word]) -> bytes:
    return encode_command([word if isinstance(word, bytes) else str(word).encode() for word in words])
