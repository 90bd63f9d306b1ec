"""Whose code is running, and what it may not do.

A context variable holds the host whose code runs; tasks and callbacks inherit it, so it is right in every line a host's
code reaches. Outside of any host (building a world, judging it, the test itself) it is None.

A *leak* is what goes round the simulation: real time, threads, sockets, files. It raises `LeakError` with the stack of
who did it, and is written down in the world as well: code that catches every exception must not be able to hide it.
"""

import contextvars
import os
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from minidist.sim.errors import LeakError

if TYPE_CHECKING:
    from minidist.sim.host import Host

current_host: "contextvars.ContextVar[Host | None]" = contextvars.ContextVar("minidist_sim_host", default=None)

STACK_DEPTH = 12
HERE = os.path.dirname(__file__) + os.sep


@dataclass(frozen=True, slots=True)
class Leak:
    """One leak: what it was, on which host, at what virtual time, and the stack that led there."""

    what: str
    host: str
    at_s: float
    stack: str

    def __str__(self) -> str:
        where = f"host {self.host} at {self.at_s:.6f} s" if self.host else "no host"
        return f"{self.what} has no place in a simulation ({where}):\n{self.stack}"


def _who_did_it(stack: list[traceback.FrameSummary]) -> list[traceback.FrameSummary]:
    """The frames between the event loop and the door that was shut: the code that did it."""
    while stack and stack[-1].filename.startswith(HERE):
        stack.pop()
    steps = [place for place, frame in enumerate(stack) if frame.filename.startswith(HERE)]
    return stack[(steps[-1] + 1 if steps else 0) :][-STACK_DEPTH:]


def leak(what: str) -> NoReturn:
    """Note what goes round the simulation, and raise LeakError."""
    host = current_host.get()
    token = current_host.set(None)  # the sources that the stack shows are really read
    stack = "".join(traceback.format_list(_who_did_it(traceback.extract_stack()[:-1])))
    current_host.reset(token)
    found = Leak(what, host.name if host else "", host.world.now_s if host else 0.0, stack)
    if host is not None:
        host.world.leaks.append(found)
    raise LeakError(str(found))
