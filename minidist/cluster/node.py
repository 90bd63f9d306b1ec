"""One node of a running cluster: what is known about it, and the states it goes through.

    STARTING ──ready──▶ RUNNING ◀──resume── PAUSED
        │                  │ └────pause──────▶│
        └───────┬──────────┴─────────┬────────┘
                ▼                    ▼
       STOPPED (on purpose, or      FAILED (ended by itself with an error, or never became ready)
       ended by itself with 0)      KILLED (by the verb)        … and from each of the three back to STARTING

Only the `become_…` functions assign the state. What the node's end will mean is decided before the signal is sent
(`Ending`), since the exit code of a program that got SIGTERM says nothing.
"""

import asyncio
import time
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from minidist.cluster.references import Endpoint
from minidist.cluster.reservations import Reservation
from minidist.cluster.topology import Group
from minidist.runtime.config import Address


class State(Enum):
    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"
    KILLED = "killed"
    FAILED = "failed"


class Ending(Enum):
    """Why a node is about to end."""

    UNEXPECTED = "unexpected"
    STOP = "stop"
    KILL = "kill"
    KEPT_DOWN = "kept down"  #: a kill that lasts, also where the file says that the node restarts


ALIVE = (State.STARTING, State.RUNNING, State.PAUSED)
DELIBERATE = (State.STOPPED, State.KILLED, State.PAUSED)


@dataclass(eq=False, slots=True)
class Process:
    """One start of a node. `exited` has the exit code once it has ended (minus the number of the signal)."""

    pid: int
    exited: "asyncio.Future[int]"


@dataclass(eq=False, slots=True)
class Node:
    """A node. `listeners` and `address` are the reserved ones; the ready line may add further listeners."""

    group: Group
    index: int
    region: str | None = None
    reservations: dict[str, Reservation] = field(default_factory=dict)
    state: State = State.STARTING
    process: Process | None = None
    ending: Ending = Ending.UNEXPECTED
    exit: int | None = None
    restarts: int = 0
    started_s: float = 0.0
    log_start: int = 0  #: where in its log this start begins
    listeners: dict[str, str] = field(default_factory=dict)
    role: str = ""  #: as the node's status said last
    figures: dict[str, Any] = field(default_factory=dict)  #: likewise
    ready: bool = False  #: whether this start has become ready
    ready_line: asyncio.Event = field(default_factory=asyncio.Event)
    waiting_for: str = ""  #: what it takes to be ready, while it is not
    trouble: str = ""  #: why there could be no process at all
    changed: asyncio.Event = field(default_factory=asyncio.Event)  #: set, and replaced, at each change

    @property
    def name(self) -> str:
        return f"{self.group.name}-{self.index + 1}"

    @property
    def component(self) -> str:
        return self.group.component

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process else None

    @property
    def alive(self) -> bool:
        """Whether a process of this node exists."""
        return self.process is not None

    @property
    def address(self) -> Address:
        return self.reservations["listen"].address

    @property
    def admin(self) -> Address | None:
        return self.reservations["admin"].address if "admin" in self.reservations else None

    @property
    def endpoint(self) -> Endpoint:
        """How references and users see it; a wildcard address is reached on loopback."""
        loopback = {"0.0.0.0": "127.0.0.1", "::": "::1"}
        host = loopback.get(self.address.host, self.address.host)
        return Endpoint(self.name, self.component, host, self.address.port, str(self.admin or ""))

    # --- states ------------------------------------------------------------------------------------------------------

    def become_starting(self) -> None:
        self.ending, self.ready, self.waiting_for, self.trouble = Ending.UNEXPECTED, False, "", ""
        self._become(State.STARTING)

    def become_spawned(self, process: Process) -> None:
        """A process of this node exists; the state stays `starting`."""
        if self.started_s:
            self.restarts += 1
        self.process, self.exit, self.started_s = process, None, time.monotonic()

    def become_ready(self) -> None:
        """This start is ready. A node that was paused meanwhile stays paused."""
        self.ready, self.waiting_for = True, ""
        if self.state is State.STARTING:
            self._become(State.RUNNING)

    def become_paused(self) -> None:
        self._become(State.PAUSED)

    def become_resumed(self) -> None:
        self._become(State.RUNNING if self.ready else State.STARTING)

    def become_stopped(self) -> None:
        """A node without a process is now down on purpose."""
        self._become(State.STOPPED)

    def become_ended(self, code: int | None) -> None:
        """The process is gone: stopped, killed or failed, by what was intended and, if nothing was, by the code."""
        self.process, self.exit, self.role, self.waiting_for = None, code, "", ""
        unexpected = State.STOPPED if code == 0 and self.ready else State.FAILED
        by_intention = {Ending.STOP: State.STOPPED, Ending.KILL: State.KILLED, Ending.KEPT_DOWN: State.KILLED}
        self._become(by_intention.get(self.ending, unexpected))

    def intend(self, ending: Ending) -> None:
        """What the node's end, about to come, will mean."""
        self.ending = ending
        self._notify()

    def wait_for(self, what: str) -> None:
        self.waiting_for = what

    def _become(self, state: State) -> None:
        self.state = state
        self._notify()

    def _notify(self) -> None:
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()

    # --- what `ps` shows ---------------------------------------------------------------------------------------------

    @property
    def uptime_s(self) -> float | None:
        return round(time.monotonic() - self.started_s, 3) if self.process else None

    def row(self) -> dict[str, Any]:
        """The node in the contract's fields of `ps --json`."""
        return {
            "name": self.name,
            "group": self.group.name,
            "component": self.component,
            "pid": self.pid,
            "state": self.state.value,
            "exit": self.exit,
            "restarts": self.restarts,
            "address": self.endpoint.address,
            "admin": str(self.admin) if self.admin else None,
            "url": self.endpoint.url,
            "listeners": self.listeners,
            "role": self.role or None,
            "region": self.region,
            "uptime_s": self.uptime_s,
        }
