"""Handles: what a test holds of its nodes.

    cache = minidist.cache()          a Group; of one node it is also that node
    cache.url, cache.pid, cache.log   …
    cache.kill(); cache.restart()     done when they return; awaiting the result is allowed and changes nothing
    cache.faults.delay(ms=50)         a FaultHandle: remove() it, or use it in a `with`
    cache.clock.advance(hours=1)

Everything a handle says is asked anew from the supervisor, because a node that was restarted has another pid.
"""

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from minidist.runtime.admin_client import AdminRefused, call_blocking
from minidist.runtime.config import Address, show_duration
from minidist.testing.carrier import Supervision
from minidist.testing.errors import MinidistError

H = TypeVar("H", bound="Handle")
LOG_TAIL_BYTES = 64 * 1024
STOP_TIMEOUT_S = 5.0


class Done:
    """The result of something that is done already: `await` it or leave it."""

    def __await__(self) -> Generator[None, None, None]:
        return
        yield


DONE = Done()


def milliseconds(*, hours: float = 0, minutes: float = 0, seconds: float = 0, ms: float = 0) -> int:
    return round(((hours * 60 + minutes) * 60 + seconds) * 1000 + ms)


class FaultHandle:
    """One fault that is set. As a context manager it ends with the block."""

    def __init__(self, supervision: Supervision, fault_id: str) -> None:
        self._supervision = supervision
        self.id = fault_id

    @property
    def fired(self) -> int:
        """How often it took effect so far; 0 once it has ended."""
        return sum(fault.get("fired", 0) for fault in self._supervision.call("fault-ls") if fault["id"] == self.id)

    def remove(self) -> None:
        self._supervision.call("fault-rm", id=self.id)

    def __enter__(self) -> "FaultHandle":
        return self

    def __exit__(self, *exception: object) -> None:
        if any(fault["id"] == self.id for fault in self._supervision.call("fault-ls")):
            self.remove()


class Faults:
    """Sets faults on a node or group. Every method takes the common parameters of a fault: peer, direction,
    probability, times, duration, seed, at (see docs/faults.md)."""

    def __init__(self, supervision: Supervision, on: str) -> None:
        self._supervision = supervision
        self._on = on

    def add(self, kind: str, **parameters: Any) -> FaultHandle:
        peer = parameters.pop("peer", ())
        peers = [peer] if isinstance(peer, str | Handle) else list(peer)
        fault_id = self._supervision.call(
            "fault-add",
            kind=kind,
            on=[self._on],
            peer=[each.name if isinstance(each, Handle) else each for each in peers],
            parameters={key: value for key, value in parameters.items() if value is not None},
        )
        return FaultHandle(self._supervision, fault_id)

    def partition(self, **common: Any) -> FaultHandle:
        return self.add("partition", **common)

    def delay(self, ms: float, jitter_ms: float = 0, **common: Any) -> FaultHandle:
        return self.add("delay", ms=ms, jitter_ms=jitter_ms, **common)

    def bandwidth(self, bytes_per_s: int, **common: Any) -> FaultHandle:
        return self.add("bandwidth", bytes_per_s=bytes_per_s, **common)

    def drop(self, probability: float, **common: Any) -> FaultHandle:
        return self.add("drop", probability=probability, **common)

    def refuse(self, **common: Any) -> FaultHandle:
        return self.add("refuse", **common)

    def reset(self, after_bytes: int = 0, **common: Any) -> FaultHandle:
        return self.add("reset", after_bytes=after_bytes, **common)

    def hang(self, after_bytes: int = 0, **common: Any) -> FaultHandle:
        return self.add("hang", after_bytes=after_bytes, **common)

    def reply(self, error: str, match: str = "*", key: str = "*", **common: Any) -> FaultHandle:
        return self.add("reply", error=error, match=match, key=key, **common)

    def disk(self, what: str, ms: float | None = None, **common: Any) -> FaultHandle:
        return self.add("disk", what=what, ms=ms, **common)

    def list(self) -> "list[dict[str, Any]]":
        """The faults that are set anywhere, as `minidist fault ls --json` shows them."""
        listed: list[dict[str, Any]] = self._supervision.call("fault-ls")
        return listed

    def clear(self) -> None:
        """End every fault that was set on this node or group."""
        for fault in self.list():
            if self._on in fault["on"]:
                self._supervision.call("fault-rm", id=fault["id"])


class ServiceClock:
    """Moves the service time of a node or group."""

    def __init__(self, supervision: Supervision, nodes: str) -> None:
        self._supervision = supervision
        self._nodes = nodes

    def advance(self, *, hours: float = 0, minutes: float = 0, seconds: float = 0, ms: float = 0) -> None:
        """Forward, or back with negative amounts. What has become due has happened when this returns."""
        by_ms = milliseconds(hours=hours, minutes=minutes, seconds=seconds, ms=ms)
        text = ("-" if by_ms < 0 else "") + show_duration(abs(by_ms))
        self._supervision.call("clock", all=False, nodes=[self._nodes], advance=text)


class Handle(ABC):
    """What nodes and groups have in common. `name` is what verbs call it."""

    def __init__(self, supervision: Supervision, name: str) -> None:
        self._supervision = supervision
        self.name = name
        self.faults = Faults(supervision, name)
        self.clock = ServiceClock(supervision, name)

    @abstractmethod
    def _rows(self) -> list[dict[str, Any]]:
        """The nodes this is about, as `ps --json` shows them."""

    @property
    def _row(self) -> dict[str, Any]:
        return self._rows()[0]

    @property
    def url(self) -> str:
        return str(self._row["url"])

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return str(self._row["address"])

    @property
    def host(self) -> str:
        return Address.parse(self.address).host

    @property
    def port(self) -> int:
        return Address.parse(self.address).port

    @property
    def admin(self) -> str:
        """The admin port's HOST:PORT; empty for your own program."""
        return str(self._row["admin"] or "")

    @property
    def listeners(self) -> dict[str, str]:
        return dict(self._row["listeners"])

    @property
    def pid(self) -> int | None:
        """None while there is no process."""
        pid: int | None = self._row["pid"]
        return pid

    @property
    def state(self) -> str:
        return str(self._row["state"])

    @property
    def log_path(self) -> Path:
        return self._supervision.log_path(self._row["name"])

    @property
    def log(self) -> str:
        """What the node has logged; of a long log, the end."""
        try:
            data = self.log_path.read_bytes()
        except FileNotFoundError:
            return ""
        return data[-LOG_TAIL_BYTES:].decode("utf-8", "replace")

    @property
    def env(self) -> dict[str, str]:
        """Variables for a program under test: GROUP_URL, GROUP_HOST, GROUP_PORT, …"""
        prefix = self._row["group"].upper().replace("-", "_") + "_"
        variables: dict[str, str] = self._supervision.call("env")
        return {name: value for name, value in variables.items() if name.startswith(prefix)}

    def status(self) -> dict[str, Any]:
        """The node's own `GET /status`."""
        status: dict[str, Any] = call_blocking(Address.parse(self.admin), "GET", "/status")
        return status

    def reset(self) -> None:
        """As new: data, users, changed settings, faults, clock, counters. Connections stay."""
        self.faults.clear()
        for row in self._rows():
            try:
                call_blocking(Address.parse(row["admin"]), "POST", "/reset")
            except AdminRefused as error:
                raise MinidistError(f"{row['name']}: {error}") from error

    def kill(self) -> Done:
        """SIGKILL: no cleanup. The port stays reserved, so clients are refused."""
        self._supervision.call("kill", nodes=[self.name])
        return DONE

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> Done:
        """SIGTERM, and SIGKILL after `timeout_s`."""
        self._supervision.call("stop", nodes=[self.name], timeout_s=timeout_s)
        return DONE

    def restart(self, *, rolling: bool = False, timeout_s: float = STOP_TIMEOUT_S) -> Done:
        """Stop if it runs, start, wait until it is ready."""
        self._supervision.call("restart", nodes=[self.name], rolling=rolling, timeout_s=timeout_s)
        return DONE

    def pause(self) -> Done:
        """SIGSTOP: it holds its connections and says nothing."""
        self._supervision.call("pause", nodes=[self.name])
        return DONE

    def resume(self) -> Done:
        self._supervision.call("resume", nodes=[self.name])
        return DONE

    def wait_ready(self, timeout_s: float = 30.0) -> Done:
        self._supervision.call("wait", nodes=[self.name], timeout_s=timeout_s)
        return DONE

    def close(self) -> None:  # noqa: B027
        """Remove it for good. A single node goes with its group, so for it this does nothing."""

    def __enter__(self: H) -> H:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self: H) -> H:
        return self

    async def __aexit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"


class Node(Handle):
    """One node of a group."""

    def _rows(self) -> list[dict[str, Any]]:
        return [row for row in self._supervision.rows() if row["name"] == self.name]


class Group(Handle):
    """A group of nodes, in the order of their numbers; what is asked of one node is asked of the first."""

    def __init__(self, supervision: Supervision, name: str, remove: Any = None) -> None:
        super().__init__(supervision, name)
        self._remove = remove

    def _rows(self) -> list[dict[str, Any]]:
        return [row for row in self._supervision.rows() if row["group"] == self.name]

    @property
    def nodes(self) -> list[Node]:
        return [Node(self._supervision, row["name"]) for row in self._rows()]

    @property
    def urls(self) -> list[str]:
        return [row["url"] for row in self._rows()]

    @property
    def bootstrap(self) -> str:
        """All addresses, comma separated."""
        return ",".join(row["address"] for row in self._rows())

    def _of_role(self, role: str) -> list[Node]:
        return [Node(self._supervision, row["name"]) for row in self._rows() if row["role"] == role]

    @property
    def leader(self) -> Node:
        leaders = self._of_role("leader")
        if not leaders:
            raise MinidistError(f"{self.name} has no leader")
        return leaders[0]

    @property
    def followers(self) -> list[Node]:
        return self._of_role("follower")

    def partition(
        self, side: "Sequence[Handle | str]", other: "Sequence[Handle | str]", *, one_way: bool = False
    ) -> FaultHandle:
        """No bytes between two sides; with `one_way`, none from the first to the second."""
        return partition(self._supervision, side, other, one_way=one_way)

    def heal(self) -> None:
        """End every partition."""
        self._supervision.call("heal", all=False)

    def scale(self, replicas: int) -> None:
        self._supervision.call("scale", groups={self.name: replicas})

    def close(self) -> None:
        if self._remove is not None:
            remove, self._remove = self._remove, None
            remove()

    def __len__(self) -> int:
        return len(self._rows())

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    def __getitem__(self, index: Any) -> Any:
        return self.nodes[index]


class Cluster:
    """A whole topology that runs: `cluster["store"]`. A context manager, sync and async."""

    def __init__(self, supervision: Supervision) -> None:
        self._supervision = supervision
        self.groups = {row["group"]: Group(supervision, row["group"]) for row in supervision.rows()}

    def __getitem__(self, name: str) -> "Group | Node":
        """A group, or a node by its name. Raises KeyError."""
        if name in self.groups:
            return self.groups[name]
        return {node.name: node for group in self.groups.values() for node in group}[name]

    @property
    def env(self) -> dict[str, str]:
        """What `minidist env` prints: every group's address, for programs under test."""
        variables: dict[str, str] = self._supervision.call("env")
        return variables

    def partition(
        self, side: "Sequence[Handle | str]", other: "Sequence[Handle | str]", *, one_way: bool = False
    ) -> FaultHandle:
        return partition(self._supervision, side, other, one_way=one_way)

    def heal(self, *, everything: bool = False) -> None:
        """End every partition, or with `everything` every fault."""
        self._supervision.call("heal", all=everything)

    def close(self) -> None:
        self._supervision.close()

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    async def __aenter__(self) -> "Cluster":
        return self

    async def __aexit__(self, *exception: object) -> None:
        self.close()


def partition(
    supervision: Supervision, side: "Sequence[Handle | str]", other: "Sequence[Handle | str]", *, one_way: bool
) -> FaultHandle:
    names = [[each.name if isinstance(each, Handle) else each for each in nodes] for nodes in (side, other)]
    return FaultHandle(supervision, supervision.call("partition", side=names[0], other=names[1], one_way=one_way))
