"""Two connections joined, for good or for a number of bytes."""

import asyncio
from collections.abc import Callable, Generator
from typing import Any

from minidist.runtime.connection import Connection
from minidist.runtime.relay.ends import RelayBroken
from minidist.runtime.relay.flow import Flow, Mode


class Relay:
    """Two connections joined. `await relay` waits until both directions are over, however they ended.

    `forward` and `backward` count the bytes of each direction (`carried`); `error` tells what broke the relay, None
    when both sides ended in order. Both connections are closed by then, or closing once their buffers have gone out.
    """

    __slots__ = ("_over", "backward", "error", "forward")

    def __init__(self, a: Connection, b: Connection) -> None:
        self.error: RelayBroken | None = None
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.forward = Flow(a, b, None, self._ended)
        self.backward = Flow(b, a, None, self._ended)

    def __await__(self) -> Generator[Any, None, None]:
        return asyncio.shield(self._over).__await__()

    def when_over(self, callback: Callable[["Relay"], object]) -> None:
        self._over.add_done_callback(lambda _: callback(self))

    def _ended(self, flow: Flow, error: RelayBroken | None) -> None:
        if error is not None:
            self.error = self.error or error
            lost, other = (flow.source, flow.sink) if error.source_lost else (flow.sink, flow.source)
            lost.transport.abort()  # splice may have found out before the transport
            if error.error is None:
                other.close()
            else:
                other.reset()
        elif self.forward.mode is self.backward.mode is Mode.ENDED:
            flow.source.close()
            flow.sink.close()
        elif flow.sink.transport.can_write_eof():
            flow.sink.transport.write_eof()
        else:
            flow.sink.close()
        if self.forward.mode is self.backward.mode is Mode.ENDED and not self._over.done():
            self._over.set_result(None)


def relay(a: Connection, b: Connection) -> Relay:
    """Join two open connections: what one receives the other is sent, until both are closed. Returns at once.

    What either side has received before must have been written to the other by then, and nothing else may write to
    them afterwards. Their own `closed()` is still called; their `data_received` is not.
    """
    return Relay(a, b)


def relay_exactly(
    source: Connection, sink: Connection, count: int, on_end: Callable[[RelayBroken | None], object] | None = None
) -> "asyncio.Future[int]":
    """Send the next `count` bytes that `source` receives to `sink`, then give both back. Returns at once.

    The future's result is `count`, its exception RelayBroken (also when the source ends early). `on_end` is called
    with the same outcome sooner: before `source.data_received` gets what came after the last byte. Cancelling the
    future stops the flow where it is. Other bytes may flow the other way meanwhile, but nobody else writes to `sink`.
    """
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def ended(_: Flow, error: RelayBroken | None) -> None:
        if not future.done():
            if error is None:
                future.set_result(count)
            else:
                future.set_exception(error)
                future.exception()  # whoever only uses on_end need not look here
        if on_end is not None:
            on_end(error)

    if count == 0:
        future.set_result(0)
        if on_end is not None:
            on_end(None)
        return future
    flow = Flow(source, sink, count, ended)
    future.add_done_callback(lambda _: flow.end(None) if future.cancelled() else None)
    return future
