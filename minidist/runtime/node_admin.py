"""The routes of every node's admin port: what the contract promises, on top of `Node`.

GET  /healthz                          {"ok": true} while the node serves, 503 while it starts or drains
GET  /status /config /metrics          what it is, its options, Prometheus text
GET  /events[?after=N][&follow=1]      JSON lines
GET|POST|DELETE /faults[?id=F]         list, set one (the body is the fault), end one or all
POST /clock {"advance": "1h"}          move service time; negative amounts go back
POST /drain                            stop accepting, let what has begun finish
POST /reset                            as new; connections stay
"""

from typing import TYPE_CHECKING, Any

from minidist.runtime.admin import AdminError, Reply, Request, Routes, Stream, encode
from minidist.runtime.config import parse_shift
from minidist.runtime.faults import FaultError
from minidist.runtime.metrics import exposition

if TYPE_CHECKING:
    from minidist.runtime.node import Message, Node

PROMETHEUS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def routes_of(node: "Node") -> Routes:
    """The common routes of a node and those its component adds."""
    routes = NodeRoutes(node)
    common: Routes = {
        ("GET", "/healthz"): routes.healthz,
        ("GET", "/status"): routes.status,
        ("GET", "/config"): lambda request: node.config.shown(),
        ("GET", "/metrics"): routes.metrics,
        ("GET", "/events"): routes.events,
        ("GET", "/faults"): routes.faults,
        ("POST", "/faults"): routes.add_fault,
        ("DELETE", "/faults"): routes.remove_fault,
        ("POST", "/clock"): routes.move_clock,
        ("POST", "/drain"): routes.drain,
        ("POST", "/reset"): routes.reset,
    }
    return common | node.routes()


class NodeRoutes:
    """The handlers of the common routes."""

    def __init__(self, node: "Node") -> None:
        self.node = node

    def healthz(self, request: Request) -> Reply:
        state = self.node.state.value
        ok = state == "running"
        return Reply(encode({"ok": ok, "state": state}), status=200 if ok else 503)

    async def status(self, request: Request) -> "Message":
        return await self.node.whole_status()

    async def metrics(self, request: Request) -> Reply:
        return Reply(exposition(await self.node.whole_families()).encode(), PROMETHEUS_TYPE)

    def events(self, request: Request) -> Stream:
        after = _whole_number(request.query.get("after", "0"), "after")
        follow = self.node.events.follow if request.query.get("follow") in ("1", "true") else None
        return Stream(self.node.events.since(after), follow)

    async def faults(self, request: Request) -> "Message":
        return {"faults": await self.node.whole_faults()}

    async def add_fault(self, request: Request) -> "Message":
        try:
            return {"id": await self.node.add_fault(_object(request))}
        except FaultError as error:
            raise AdminError(400, str(error)) from error

    async def remove_fault(self, request: Request) -> "Message":
        fault_id = request.query.get("id")
        if fault_id is None:
            return {"removed": await self.node.clear_faults()}
        if not await self.node.remove_fault(fault_id):
            raise AdminError(
                404, f"id: given {fault_id!r}, allowed: {', '.join(self.node.faults.faults) or 'nothing: none is set'}"
            )
        return {"removed": [fault_id]}

    async def move_clock(self, request: Request) -> "Message":
        given: Any = _object(request).get("advance")
        try:
            by_ms = parse_shift(given)
        except (TypeError, ValueError):
            shown = "nothing" if given is None else repr(given)
            raise AdminError(400, f"advance: given {shown}, allowed: a duration such as 1500ms, 30s, -2h") from None
        await self.node.advance_clock(by_ms)
        return {"clock_offset_ms": self.node.clock.offset_ms, "now_ms": self.node.clock.now_ms()}

    async def drain(self, request: Request) -> "Message":
        await self.node.drain()
        return {"state": self.node.state.value}

    async def reset(self, request: Request) -> "Message":
        await self.node.reset()
        return {"ok": True}


def _object(request: Request) -> "Message":
    body: Any = request.json()
    if not isinstance(body, dict):
        raise AdminError(400, f"body: given {type(body).__name__}, allowed: a JSON object")
    return body


def _whole_number(text: str, name: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 20):
        raise AdminError(400, f"{name}: given {text!r}, allowed: a whole number")
    return int(text)
