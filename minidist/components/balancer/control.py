"""The control half: the one writer of health, and of which upstreams there are.

It checks every upstream, hears from the data halves how requests ended, and sends each of them the whole list of
upstreams whenever something in it has changed. A check is one task per upstream; everything that is decided is decided
by `engines.balancing.Health`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any

from minidist.components.balancer.config import BalancerConfig, parse_upstream
from minidist.components.balancer.upstream import host_of
from minidist.engines.balancing import Change, Health, HealthSettings
from minidist.runtime.admin import AdminError, Request
from minidist.runtime.config import Address, ConfigError
from minidist.runtime.endpoint import DialError, Dialler
from minidist.runtime.events import EventLog
from minidist.runtime.http_exchange import ExchangeError, exchange
from minidist.runtime.metrics import Family, gauge
from minidist.wire import http1

Message = dict[str, Any]

JITTER = 0.1  # share of the interval, so that checks of many balancers do not fall together
MAX_CHECK_BODY_BYTES = 1024 * 1024
MAX_UPSTREAMS = 1000  # each has a task that checks it; far more than one process can use
COUNTED = ("requests", "failures")
SUMMED = ("active", *COUNTED, "connections", "idle")


class ControlHalf:
    """Health and membership of the upstreams."""

    def __init__(
        self,
        config: BalancerConfig,
        random: Random,
        decide: Callable[[Message], None],
        dialler: Dialler[Any],
        events: EventLog,
    ) -> None:
        self.config = config
        self.random = random
        self.decide = decide
        self.dialler = dialler
        self.events = events
        self.expected = config.expected_statuses()
        self.health = Health(
            HealthSettings(
                rise=config.rise,
                fall=config.fall,
                eject_after=config.eject_after,
                eject_base_ms=config.eject_base,
                eject_max_ms=config.eject_max,
                eject_max_percent=config.eject_max_percent,
                panic_percent=config.panic_percent,
            )
        )
        self.figures: dict[int, dict[str, Message]] = {}  # worker → upstream → figures
        self._past: dict[str, Message] = {}  # upstream → what workers that died had counted
        self._checks: dict[str, asyncio.Task[None]] = {}
        self._tick: asyncio.TimerHandle | None = None

    def open(self) -> None:
        for name, weight in self.config.upstreams():
            self.add(name, weight)
        self._settle([])

    def close(self) -> None:
        for task in self._checks.values():
            task.cancel()
        self._checks.clear()
        if self._tick is not None:
            self._tick.cancel()

    def reset(self) -> None:
        """Back to the upstreams that the options name."""
        self._past.clear()
        wanted = dict(self.config.upstreams())
        for name in self.health.names():
            if name not in wanted:
                self.remove(name)
        for name, weight in wanted.items():
            self.add(name, weight)

    # --- inputs -----------------------------------------------------------------------------------------------------

    def reported(self, worker: int, report: Message) -> None:
        """A data half tells something."""
        if report["kind"] == "figures":
            self.figures[worker] = report["upstreams"]
        else:
            self._settle(self.health.outcome(report["upstream"], report["ok"], report["why"], self._now_ms()))

    def worker_lost(self, worker: int) -> None:
        """What it had under way is over; what it had counted stays."""
        for name, figures in self.figures.pop(worker, {}).items():
            past = self._past.setdefault(name, dict.fromkeys(COUNTED, 0))
            for key in COUNTED:
                past[key] += figures[key]

    def add(self, name: str, weight: int = 1) -> None:
        self._settle(self.health.add(name, weight))
        if name not in self._checks and self.config.check != "off":
            self._checks[name] = asyncio.get_running_loop().create_task(self._keep_checking(name))

    def drain(self, name: str) -> None:
        self._settle(self.health.drain(name))

    def remove(self, name: str) -> None:
        self._settle(self.health.remove(name))
        self._past.pop(name, None)
        task = self._checks.pop(name, None)
        if task is not None:
            task.cancel()

    def standing_decision(self) -> Message:
        """What a data half that starts now has to know."""
        return {"kind": "upstreams", **self.health.snapshot()}

    def _now_ms(self) -> int:
        return int(asyncio.get_running_loop().time() * 1000)

    def _settle(self, changes: list[Change]) -> None:
        """After every input: tell the operator, tell the data halves, wait for what comes next."""
        for change in changes:
            if change.name:
                self.events.emit(
                    "upstream", upstream=change.name, before=change.before, after=change.after, why=change.why
                )
            else:
                self.events.emit("panic" if change.after == "panic" else "panic-over", why=change.why)
        snapshot = self.health.take_snapshot()
        if snapshot is not None:
            self.decide({"kind": "upstreams", **snapshot})
        if self._tick is not None:
            self._tick.cancel()
            self._tick = None
        due_ms = self.health.next_ms()
        if due_ms is not None:
            delay_s = max(0, due_ms - self._now_ms()) / 1000
            self._tick = asyncio.get_running_loop().call_later(delay_s, self._ticked)

    def _ticked(self) -> None:
        self._tick = None
        self._settle(self.health.tick(self._now_ms()))

    # --- checks -----------------------------------------------------------------------------------------------------

    async def _keep_checking(self, name: str) -> None:
        address = Address.parse(name)
        interval_s = self.config.check_interval / 1000
        while True:
            verdict = await self._check(address)
            if verdict is not None:
                self._settle(self.health.checked(name, *verdict))
            await asyncio.sleep(interval_s * (1 + JITTER * (self.random.random() - 0.5)))

    async def _check(self, address: Address) -> tuple[bool, str] | None:
        """One check: whether it passed, and what it saw; None when we had no means to check."""
        timeout_s = self.config.check_timeout / 1000
        try:
            if self.config.check == "tcp":
                connection = await self.dialler.dial(address, http_connection, timeout_s=timeout_s)
                connection.close()
                return True, "check: connected"
            request = http1.request("GET", self.config.check, host_of(address), CHECK_HEADERS)
            answer = await exchange(
                self.dialler, address, "GET", request, timeout_s=timeout_s, max_body_bytes=MAX_CHECK_BODY_BYTES
            )
        except (ExchangeError, DialError) as error:
            return None if error.is_ours else (False, f"check: {error}")
        ok = answer.status in self.expected
        return ok, f"check: GET {self.config.check} {'passed' if ok else 'failed'} with {answer.status}"

    # --- the admin port ---------------------------------------------------------------------------------------------

    def listed(self) -> Message:
        """What `GET /upstreams` answers: what is decided, and the figures of all workers."""
        self.decide({"kind": "figures"})
        snapshot = self.health.snapshot()
        for entry in snapshot["upstreams"]:
            entry["address"] = entry["name"]
            entry |= self._total(entry["name"])
        return {"balance": self.config.balance, **snapshot}

    def families(self) -> list[Family]:
        snapshot = self.health.snapshot()
        states = [({"upstream": entry["name"], "state": entry["state"]}, 1.0) for entry in snapshot["upstreams"]]
        return [
            Family("upstream_state", "gauge", "1 for the state an upstream is in.", states),
            gauge("upstreams_panic", "1 while health is ignored.", int(snapshot["panic"])),
        ]

    def _total(self, name: str) -> Message:
        each = [figures[name] for figures in self.figures.values() if name in figures]
        total: Message = {key: sum(figures[key] for figures in each) for key in SUMMED}
        requests = sum(figures["requests"] for figures in each) or 1
        total["ewma_ms"] = round(sum(figures["ewma_ms"] * figures["requests"] for figures in each) / requests, 3)
        for key, count in self._past.get(name, {}).items():
            total[key] += count
        return total

    def change(self, request: Request) -> Message:
        """`POST /upstreams` {"add": ADDRESS…, "weight": N} | {"drain": ADDRESS…} | {"remove": ADDRESS…}."""
        body = request.json()
        actions: list[tuple[str, dict[str, int]]] = []
        if not isinstance(body, dict) or not body.keys() & {"add", "drain", "remove"}:
            raise AdminError(400, 'the body is {"add": ADDRESS}, {"drain": ADDRESS} or {"remove": ADDRESS}')
        for verb in ("add", "drain", "remove"):
            given = body.get(verb, [])
            texts = given if isinstance(given, list) else [given]
            weights = dict(self._upstream(text, body.get("weight")) for text in texts)
            actions.append((verb, weights))
        known = self.health.names()
        for verb, upstreams in actions:
            for name in upstreams:
                if verb != "add" and name not in known:
                    allowed = ", ".join(known) or "nothing: none is there"
                    raise AdminError(404, f"{verb}: given {name!r}, allowed: {allowed}")
        if len({*known, *actions[0][1]}) > MAX_UPSTREAMS:
            raise AdminError(400, f"there can be {MAX_UPSTREAMS} upstreams")
        for verb, upstreams in actions:
            for name, weight in upstreams.items():
                if verb == "add":
                    self.add(name, weight)
                elif verb == "drain":
                    self.drain(name)
                else:
                    self.remove(name)
        return self.listed()

    def _upstream(self, text: Any, weight: Any) -> tuple[str, int]:
        if not isinstance(text, str) or not (weight is None or isinstance(weight, int)):
            raise AdminError(400, "an upstream is HOST:PORT or HOST:PORT=WEIGHT, a weight a number")
        try:
            return parse_upstream(text if weight is None or "=" in text else f"{text}={weight}")
        except ConfigError as error:
            raise AdminError(400, str(error)) from None


CHECK_HEADERS = [("User-Agent", "minidist-check"), ("Connection", "close")]


def http_connection(dialler: Dialler[Any]) -> Any:
    from minidist.runtime.connection import Connection

    return Connection(dialler)
