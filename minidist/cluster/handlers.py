"""What the supervisor does for each verb: one handler per verb, named in `Handlers.table()`.

A handler takes the request (the verb's arguments, see control.py) and a session for progress and streams, and returns
the result. It checks names first, so that a verb with a wrong one does nothing at all. The work is done in cluster.py,
scaling.py, growth.py and faults.py. Their errors become the verb's here: ClusterError with its own exit code, what was
asked for wrongly (FaultRefused, TopologyError) with 2. Handlers run side by side; only `scale` waits for another
`scale`, since both would number new nodes.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minidist.cluster.cluster import ClusterError
from minidist.cluster.control import Message, VerbError
from minidist.cluster.control_server import Handler, Session
from minidist.cluster.faults import FaultRefused
from minidist.cluster.node import DELIBERATE, Node, State
from minidist.cluster.reservations import PortTaken
from minidist.cluster.scaling import scale
from minidist.cluster.topology import TopologyError
from minidist.runtime.admin_client import AdminRefused, AdminUnreachable, call

if TYPE_CHECKING:
    from minidist.cluster.supervisor import Supervisor

ASK_TIMEOUT_S = 1.0
DEFAULT_TIMEOUT_S = 30.0


class Handlers:
    """The verbs of one supervisor."""

    def __init__(self, supervisor: "Supervisor") -> None:
        self.supervisor = supervisor
        self.cluster = supervisor.cluster
        self.scaling = asyncio.Lock()

    def table(self) -> dict[str, Handler]:
        verbs: dict[str, Handler] = {
            "attach": self.attach,
            "up": self.up,
            "down": self.down,
            "ps": self.ps,
            "wait": self.wait,
            "env": self.env,
            "start": self.start,
            "stop": self.stop,
            "restart": self.restart,
            "kill": self.kill,
            "pause": self.pause,
            "resume": self.resume,
            "scale": self.scale,
            "status": self.status,
            "clock": self.clock,
            "events": self.events,
            "partition": self.partition,
            "heal": self.heal,
            "fault-add": self.fault_add,
            "fault-ls": self.fault_ls,
            "fault-rm": self.fault_rm,
            "add-groups": self.add_groups,
            "remove-groups": self.remove_groups,
        }
        return {verb: _guarded(handler) for verb, handler in verbs.items()}

    # --- up and down -------------------------------------------------------------------------------------------------

    async def attach(self, request: Message, session: Session) -> Any:
        """Progress until everything is ready; an error, once all is stopped again, when it does not come to that."""
        outcome = self.supervisor.outcome
        self.supervisor.attached.set()
        told = 0
        while True:
            done = outcome.done()
            for text in self.supervisor.progress[told:]:
                session.progress(text)
            told = len(self.supervisor.progress)
            if done:
                break
            await asyncio.wait({outcome}, timeout=0.05)
        if outcome.result():
            raise VerbError(outcome.result())
        return self.summary()

    async def up(self, request: Message, session: Session) -> Any:
        """A second `up`: start what is missing of the same file."""
        from minidist.cluster.growth import grow

        if await asyncio.shield(self.supervisor.outcome):
            raise VerbError(f"the cluster in {self.cluster.run_dir.path} is going down")
        grow(self.supervisor, request["file"], request["name"])
        timeout_s = request["timeout_s"]
        told = len(self.supervisor.progress)
        failure = await self.supervisor.start_everything(timeout_s)
        for text in self.supervisor.progress[told:]:
            session.progress(text)
        if failure:
            raise VerbError(failure)
        return self.summary()

    async def down(self, request: Message, session: Session) -> Any:
        self.supervisor.go_down(request["timeout_s"])
        return None

    def summary(self) -> Message:
        return {
            "name": self.cluster.topology.name,
            "file": str(Path(self.supervisor.options.file).absolute()),
            "run_dir": str(self.cluster.run_dir.path),
            "supervisor_pid": self.supervisor.pid,
        }

    # --- looking -----------------------------------------------------------------------------------------------------

    async def ps(self, request: Message, session: Session) -> Any:
        ours = [node for node in self.cluster.nodes if node.state is State.RUNNING and node.admin]
        for node, status in zip(ours, await asyncio.gather(*(self.ask(node, "/status") for node in ours)), strict=True):
            node.role = status.get("role") or ""
            node.figures = status.get("figures", {})
        rows = [
            node.row() | ({"figures": node.figures} if request.get("figures") else {}) for node in self.cluster.nodes
        ]
        return self.summary() | {"nodes": rows}

    async def ask(self, node: Node, path: str) -> Message:
        """A running node's answer; nothing when it does not answer in time."""
        assert node.admin is not None
        try:
            answer: Message = await call(node.admin, "GET", path, timeout_s=ASK_TIMEOUT_S)
        except (AdminUnreachable, AdminRefused):
            return {}
        return answer

    async def status(self, request: Message, session: Session) -> Any:
        nodes = self.cluster.find(request["nodes"])
        return list(await asyncio.gather(*(self.status_of(node) for node in nodes)))

    async def status_of(self, node: Node) -> Message:
        """The node's own status, where it can answer; else what the launcher knows, in the same fields."""
        known = {
            "name": node.name,
            "component": node.component,
            "version": None,
            "pid": node.pid,
            "state": node.state.value,
            "role": None,
            "uptime_s": node.uptime_s,
            "address": node.endpoint.address,
            "listeners": node.listeners,
            "peers": [],
            "faults": self.cluster.faults.of(node),
            "clock_offset_ms": 0,
        }
        if node.admin is None or node.state is not State.RUNNING:
            return known
        return known | await self.ask(node, "/status")

    async def events(self, request: Message, session: Session) -> Any:
        async for event in self.cluster.events.follow():
            await session.item(event)

    async def env(self, request: Message, session: Session) -> Any:
        from minidist.cluster.environment import variables

        return variables(self.cluster)

    async def wait(self, request: Message, session: Session) -> Any:
        """Nodes down or paused on purpose are left out, unless a name stands for no others."""
        nodes = self.cluster.find(request["nodes"] or list(self.cluster.groups))
        for word in request["nodes"]:
            named = self.cluster.find([word])
            if all(node.state in DELIBERATE for node in named):
                raise VerbError(", ".join(f"{node.name} is {node.state.value}" for node in named))
        await self.ready_within(nodes, request["timeout_s"])

    async def ready_within(self, nodes: Sequence[Node], timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await self.cluster.until_ready(nodes)
        except TimeoutError:
            raise VerbError(f"not ready within {timeout_s:g} s:\n{self.cluster.unready(nodes)}") from None

    # --- doing something to nodes ------------------------------------------------------------------------------------

    async def start(self, request: Message, session: Session) -> Any:
        nodes = self.cluster.find(request["nodes"])
        for node in nodes:
            self.cluster.start_node(node)
        await self.ready_within(nodes, request["timeout_s"])

    async def stop(self, request: Message, session: Session) -> Any:
        await self.cluster.stop(self.cluster.find(request["nodes"]), request["timeout_s"])

    async def restart(self, request: Message, session: Session) -> Any:
        nodes = self.cluster.find(request["nodes"])
        for batch in [[node] for node in nodes] if request["rolling"] else [nodes]:
            await self.cluster.stop(batch, request["timeout_s"])
            for node in batch:
                self.cluster.start_node(node)
            await self.ready_within(batch, DEFAULT_TIMEOUT_S)
            session.progress(", ".join(node.name for node in batch) + " ready")

    async def kill(self, request: Message, session: Session) -> Any:
        await self.cluster.kill(self.cluster.find(request["nodes"]))

    async def pause(self, request: Message, session: Session) -> Any:
        await self.cluster.pause(self.cluster.find(request["nodes"]))

    async def resume(self, request: Message, session: Session) -> Any:
        await self.cluster.resume(self.cluster.find(request["nodes"]))

    async def scale(self, request: Message, session: Session) -> Any:
        async with self.scaling:
            for group, count in request["groups"].items():
                await scale(self.cluster, group, count, request.get("timeout_s", DEFAULT_TIMEOUT_S), session.progress)

    async def clock(self, request: Message, session: Session) -> Any:
        nodes = (
            [node for node in self.cluster.nodes if node.admin]
            if request["all"]
            else self.cluster.find(request["nodes"])
        )
        for node in nodes:
            if node.admin is None:
                raise VerbError(
                    f"given {node.name!r}, your own program, allowed: minidist nodes (its clock is the machine's)", 2
                )
            if node.state is not State.RUNNING:
                raise VerbError(f"{node.name} is {node.state.value}")
        return await asyncio.gather(*(self.advance(node, request["advance"]) for node in nodes))

    async def advance(self, node: Node, by: str) -> Message:
        assert node.admin is not None
        try:
            answer = await call(node.admin, "POST", "/clock", {"advance": by}, timeout_s=ASK_TIMEOUT_S)
        except AdminRefused as refused:
            raise VerbError(f"{node.name}: {refused.text}", 2 if refused.status == 400 else 1) from refused
        except AdminUnreachable as error:
            raise VerbError(f"{node.name}: {error}") from error
        return {"name": node.name, "clock_offset_ms": answer["clock_offset_ms"]}

    # --- faults ------------------------------------------------------------------------------------------------------

    async def partition(self, request: Message, session: Session) -> Any:
        return await self.cluster.faults.partition(request["side"], request["other"], request["one_way"])

    async def heal(self, request: Message, session: Session) -> Any:
        return await self.cluster.faults.heal(request["all"])

    async def fault_add(self, request: Message, session: Session) -> Any:
        return await self.cluster.faults.add(request["kind"], request["on"], request["peer"], request["parameters"])

    async def fault_ls(self, request: Message, session: Session) -> Any:
        return await self.cluster.faults.listed()

    async def fault_rm(self, request: Message, session: Session) -> Any:
        if not await self.cluster.faults.remove(request["id"]):
            known = ", ".join(self.cluster.faults.ids()) or "none is set"
            raise VerbError(f"given {request['id']!r}, allowed: a fault of `minidist fault ls` ({known})", 2)

    # --- groups that come and go, for the test plugin ----------------------------------------------------------------

    async def add_groups(self, request: Message, session: Session) -> Any:
        from minidist.cluster.additions import add_groups

        return await add_groups(self.supervisor, request["text"], request["file"])

    async def remove_groups(self, request: Message, session: Session) -> Any:
        from minidist.cluster.additions import remove_groups

        await remove_groups(self.supervisor, request["groups"])


def _guarded(handler: Handler) -> Handler:
    """Errors of the cluster as errors of the verb."""

    async def guarded(request: Message, session: Session) -> Any:
        try:
            return await handler(request, session)
        except ClusterError as error:
            raise VerbError(str(error), error.exit_code) from error
        except (FaultRefused, TopologyError) as error:
            raise VerbError(str(error), 2) from error
        except PortTaken as error:
            raise VerbError(str(error), 1) from error

    return guarded
