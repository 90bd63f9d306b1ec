"""The data half: the parsers, the pools, the deadlines and the counters that all connections of a process share.

It decides nothing about health. What it hears (`decided`) are snapshots of the upstreams; what it tells (`report`) are
failures of requests, the first success after one, and its figures. Both are plain dicts, so that the control half may
live in another process:

    decided   {"kind": "upstreams", "panic": …, "upstreams": […]}      see engines/balancing/upstreams.py
              {"kind": "figures"}                                      report them now
    reports   {"kind": "outcome", "upstream": NAME, "ok": False, "why": TEXT}
              {"kind": "figures", "upstreams": {NAME: {"active": …, "requests": …, …}}}
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any

from minidist.components.balancer.config import BalancerConfig
from minidist.components.balancer.downstream import ClientConnection
from minidist.components.balancer.state import Forwarding
from minidist.components.balancer.upstream import AnswerState, Origin, UpstreamConnection
from minidist.engines.balancing import POLICIES, UpstreamSet
from minidist.runtime.endpoint import DialError, Dialler, Listener
from minidist.runtime.logs import NodeLog
from minidist.runtime.metrics import Histogram
from minidist.runtime.stopwatch import now_s as stopwatch_s
from minidist.wire.http1 import Limits, RequestHead, RequestParser, ResponseParser

Message = dict[str, Any]

SWEEP_S = 0.25  # how late a deadline may be noticed; ten thousand idle connections cost about a millisecond
SWEEPS_PER_REPORT = 4


class DataHalf:
    """What the connections of one process share."""

    def __init__(
        self,
        config: BalancerConfig,
        random: Random,
        report: Callable[[Message], None],
        dialler: Dialler[UpstreamConnection],
        log: NodeLog,
    ) -> None:
        self.config = config
        self.report = report
        self.dialler = dialler
        self.log = log
        self.upstreams: UpstreamSet[Origin] = UpstreamSet(POLICIES[config.balance](random), Origin)
        self.limits = Limits(head_bytes=config.max_head, fields=config.max_fields)
        self.forwarding = Forwarding(config)
        self.request_parser = RequestParser(self.limits, self.forwarding.dropped_fields())
        self.response_parser = ResponseParser(self.limits)
        self.static_about_client = not config.trust_forwarded
        self.scheme = b"https" if config.tls_cert else b"http"
        self.max_body_bytes: int = config.max_body
        self.retries = config.retries
        self.retry_bytes: int = config.retry_buffer
        self.upstream_connections = config.upstream_connections
        self.upstream_idle = config.upstream_idle
        self.idle_timeout_s = config.idle_timeout / 1000
        self.head_timeout_s = config.head_timeout / 1000
        self.response_timeout_s = config.response_timeout / 1000
        self.stream_timeout_s = config.stream_timeout / 1000
        self.tunnel_timeout_s = config.tunnel_timeout / 1000
        self.upstream_idle_timeout_s = config.upstream_idle_timeout / 1000
        self.access_log = config.access_log
        self.listener: Listener[ClientConnection] | None = None
        self._dials: dict[asyncio.Task[None], None] = {}
        self._sweep: asyncio.TimerHandle | None = None
        self._sweeps = 0
        self._reported_requests = -1
        self.clear_figures()

    def open(self, listener: Listener[ClientConnection]) -> None:
        self.loop = asyncio.get_running_loop()
        self.now_s = self.loop.time
        self.listener = listener
        self._sweep = self.loop.call_later(SWEEP_S, self._swept)

    def close(self) -> None:
        if self._sweep is not None:
            self._sweep.cancel()
        for task in self._dials:
            task.cancel()

    # --- the control half -------------------------------------------------------------------------------------------

    def decided(self, decision: Message) -> None:
        if decision["kind"] == "figures":
            self.report(self.figures_report())
            return
        for origin in self.upstreams.apply(decision):
            origin.gone = True
            for connection in list(origin.idle):
                connection.close()

    def outcome(self, origin: Origin, ok: bool, why: str) -> None:
        """Tell how a request ended for an upstream, if that is news: failures are, and the first success after one."""
        if not ok:
            origin.failures += 1
        origin.suspect = not ok
        self.report({"kind": "outcome", "upstream": origin.name, "ok": ok, "why": why})

    def answer_came(self, origin: Origin | None, started_s: float) -> None:
        """The head of an answer has come."""
        assert origin is not None
        origin.answered((stopwatch_s() - started_s) * 1000)
        if origin.suspect:
            self.outcome(origin, True, "")

    # --- connections to upstreams -----------------------------------------------------------------------------------

    def dial(self, origin: Origin, client: ClientConnection) -> None:
        """Make a new connection for a client that waits."""
        origin.open += 1
        task = self.loop.create_task(self._dial(origin, client))
        self._dials[task] = None
        task.add_done_callback(self._dials.pop)

    async def _dial(self, origin: Origin, client: ClientConnection) -> None:
        try:
            connection = await self.dialler.dial(
                origin.address,
                lambda dialler: UpstreamConnection(dialler, self, origin),
                timeout_s=self.config.connect_timeout / 1000,
            )
        except DialError as error:
            origin.open -= 1
            if error.is_ours:
                self.count("exhausted")
            else:
                self.outcome(origin, False, str(error))
            if client.waits_for(origin):
                client.attempt_failed(str(error))
            return
        if not client.waits_for(origin):
            self.release(connection, self.now_s())
        elif connection.closing:
            if connection.state is not AnswerState.CLOSED and connection not in self.dialler.connections:
                origin.open -= 1  # it was not admitted, so nobody will forget it
            client.attempt_failed("closed the connection at once")
        else:
            client.begin_exchange(connection)

    def release(self, connection: UpstreamConnection, now_s: float) -> None:
        """A connection is free: keep it, if it is worth keeping."""
        origin = connection.origin
        if connection.closing:
            return
        if origin.gone or len(origin.idle) >= self.upstream_idle or connection.write_paused:
            connection.close()
            return
        connection.expires_s = now_s + self.upstream_idle_timeout_s
        origin.idle.append(connection)

    def forget(self, connection: UpstreamConnection) -> None:
        """A connection is closed."""
        origin = connection.origin
        origin.open -= 1
        if connection in origin.idle:
            origin.idle.remove(connection)

    # --- deadlines --------------------------------------------------------------------------------------------------

    def _swept(self) -> None:
        now_s = self.now_s()
        self._sweep = self.loop.call_later(SWEEP_S, self._swept)
        if self.listener is not None:
            for client in list(self.listener.connections):
                if client.touched:
                    client.touched = False
                    if client.extend_s:
                        client.deadline_s = now_s + client.extend_s
                if 0.0 < client.deadline_s <= now_s:
                    client.expired()
        for origin in self.upstreams.members.values():
            # The oldest come first; the pool is used from the other end.
            while origin.idle and origin.idle[0].expires_s <= now_s:
                origin.idle.pop(0).close()
        self._sweeps += 1
        if self._sweeps % SWEEPS_PER_REPORT == 0 and self._reported_requests != self.requests:
            self._reported_requests = self.requests
            self.report(self.figures_report())

    # --- what clients share -----------------------------------------------------------------------------------------

    def about_client(self, client: ClientConnection, head: RequestHead) -> bytes:
        return self.forwarding.about_client(head.host, head.fields, client.client_ip, self.scheme)

    # --- figures ----------------------------------------------------------------------------------------------------

    def clear_figures(self) -> None:
        self.requests = 0
        self.bytes_out = 0
        self.by_class = [0] * 6
        self.counted: dict[str, int] = {}
        self.errors: dict[int, int] = {}
        self.latency = Histogram()
        for origin in self.upstreams.members.values():
            origin.requests = origin.failures = 0
            origin.ewma_ms = 0.0

    def count(self, what: str) -> None:
        self.counted[what] = self.counted.get(what, 0) + 1

    def count_error(self, status: int) -> None:
        """An answer of our own, not an upstream's."""
        self.errors[status] = self.errors.get(status, 0) + 1

    def done(self, client: ClientConnection) -> float:
        """An exchange is over; returns the loop's time, which the caller goes on with."""
        took_s = stopwatch_s() - client.started_s
        self.by_class[client.status // 100] += 1
        self.bytes_out += client.bytes_out
        self.latency.observe(took_s)
        if self.access_log:
            self._log_access(client, took_s)
        return self.now_s()

    def _log_access(self, client: ClientConnection, took_s: float) -> None:
        head = client.head
        self.log.info(
            "request",
            client=client.client_ip.decode(),
            method=head.method.decode() if head else "",
            target=head.target.decode() if head else "",
            host=head.host.decode() if head else "",
            status=client.status,
            bytes=client.bytes_out,
            ms=round(took_s * 1000, 3),
            upstream=client.origin.name if client.origin else "",
            attempts=client.attempts,
        )

    def figures_report(self) -> Message:
        upstreams = {
            name: origin.figures() | {"connections": origin.open, "idle": len(origin.idle)}
            for name, origin in self.upstreams.members.items()
        }
        return {"kind": "figures", "upstreams": upstreams}
