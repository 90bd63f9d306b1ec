"""The balancer node: its control half and its data half, joined by plain messages."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal

from minidist.components.balancer.config import BalancerConfig
from minidist.components.balancer.control import ControlHalf
from minidist.components.balancer.data import DataHalf
from minidist.components.balancer.downstream import ClientConnection
from minidist.components.balancer.upstream import Origin
from minidist.runtime.admin import Routes
from minidist.runtime.config import Config
from minidist.runtime.endpoint import Limits
from minidist.runtime.metrics import Family, counter
from minidist.runtime.node import Halves, Message, Node
from minidist.runtime.ports import Ports
from minidist.wire.http1 import HttpInspector


class Balancer(Node):
    """An HTTP load balancer."""

    config_type = BalancerConfig
    config: BalancerConfig

    def __init__(self, config: BalancerConfig, ports: Ports, halves: Halves = Halves.BOTH) -> None:
        super().__init__(config, ports, halves)
        dialler = self.dialler("upstreams", self._dial_limits(), HttpInspector())
        self.control = ControlHalf(config, ports.random, self.decide, self.dialler("checks"), self.events)
        self.data = DataHalf(config, ports.random, self.report, dialler, self.log)

    def _dial_limits(self) -> Limits:
        upstreams = max(len(self.config.upstream), 1)
        return Limits(
            max_connections=self.config.upstream_connections * max(upstreams, 64),
            max_buffered_bytes=self.config.client_buffer,
        )

    def limits(self) -> Limits:
        """Idle clients are the data half's business: it knows who waits for a slow upstream."""
        limits = super().limits()
        limits.idle_timeout_s = 0.0
        return limits

    async def open_control(self) -> None:
        self.control.open()

    async def open_data(self) -> None:
        listener = await self.listen(
            "http",
            self.config.listen,
            lambda listener: ClientConnection(listener, self.data),
            inspector=HttpInspector(),
        )
        self.data.open(listener)

    async def close_all(self) -> None:
        self.control.close()
        self.data.close()

    # --- between the halves -----------------------------------------------------------------------------------------

    def decided(self, decision: Message) -> None:
        self.data.decided(decision)

    def reported(self, worker: int, report: Message) -> None:
        self.control.reported(worker, report)

    def worker_lost(self, worker: int) -> None:
        self.control.worker_lost(worker)

    def standing_decisions(self) -> list[Message]:
        """What a worker that starts now has to know."""
        return [self.control.standing_decision()]

    # --- what others see --------------------------------------------------------------------------------------------

    def routes(self) -> Routes:
        return {
            ("GET", "/upstreams"): lambda request: self.control.listed(),
            ("POST", "/upstreams"): self.control.change,
        }

    def status_fields(self) -> Message:
        return {} if self.halves is Halves.DATA else {"upstreams": self.control.listed()["upstreams"]}

    def figures(self) -> Message:
        data = self.data
        return {
            "requests_total": data.requests,
            "p99_ms": round(data.latency.quantile(0.99) * 1000, 3),
            "errors_total": sum(data.errors.values()),
        }

    def families(self) -> Iterable[Family]:
        data = self.data
        yield counter("requests_total", "Requests read.", data.requests)
        answers: list[tuple[dict[str, str], Any]] = [
            ({"class": f"{index}xx"}, count) for index, count in enumerate(data.by_class) if index
        ]
        yield Family("responses_total", "counter", "Answers to clients by class of status.", answers)
        yield Family(
            "balancer_errors_total", "counter", "Answers of the balancer's own, by status.",
            [({"status": str(status)}, count) for status, count in sorted(data.errors.items())],
        )  # fmt: skip
        yield Family(
            "balancer_events_total", "counter", "Things that happened to requests.",
            [({"event": what}, count) for what, count in sorted(data.counted.items())],
        )  # fmt: skip
        yield counter("response_bytes_total", "Bytes sent to clients.", data.bytes_out)
        yield Family("request_seconds", "histogram", "From the head of a request to the end of its answer.",
                     [({}, data.latency)])  # fmt: skip
        origins = data.upstreams.members.values()

        def each(name: str, kind: Literal["counter", "gauge"], summary: str, read: Callable[[Origin], int]) -> Family:
            return Family(name, kind, summary, [({"upstream": origin.name}, read(origin)) for origin in origins])

        yield each("upstream_requests_total", "counter", "Requests sent to an upstream.", lambda o: o.requests)
        yield each("upstream_failures_total", "counter", "Requests an upstream failed.", lambda o: o.failures)
        yield each("upstream_active", "gauge", "Requests under way.", lambda o: o.active)
        yield each("upstream_connections", "gauge", "Open connections to an upstream.", lambda o: o.open)
        if self.halves is not Halves.DATA:
            yield from self.control.families()

    def configured(self, before: Config) -> None:
        self.data.idle_timeout_s = self.config.idle_timeout / 1000
        self.data.access_log = self.config.access_log

    async def reset_data(self) -> None:
        self.data.clear_figures()
        if self.halves is not Halves.DATA:
            self.control.reset()
