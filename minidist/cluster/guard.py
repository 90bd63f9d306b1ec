"""The guard: a tiny process that outlives the launcher just long enough to leave nothing behind.

It is the first process a supervisor starts. It holds the reading ends of two pipes whose only writing ends are in the
supervisor and in the launcher (the process that was typed). Reading end-of-file means that the writer is gone, however
it died. Then the guard SIGKILLs everything, stopped processes included, and goes too. The same path ends an orderly
`down`: the supervisor closes its pipe and waits for the guard, so there is one way out and it is always taken.

What is killed, in an order that leaves no gap:

1. the supervisor (when it was the launcher that died), so that nothing is restarted;
2. the fork server with its process group, so that nothing is forked any more. A child leaves that group only *after*
   it has announced itself, so each child is either killed here or already written in the announcements;
3. every announced group: one per node, users' programs included, whatever they forked;
4. on Linux, whatever carries the cluster's mark in its environment: programs that a user's program started in a
   session of their own.

The command of `minidist run` has a guard of its own, between the launcher and it: see `watching()`.

A launcher that leaves its cluster running (`up -d`) writes DETACH first; from then on only the supervisor's end counts.

A launcher that has made a temporary directory for its cluster (tests, the demo) removes it itself. When it has died
before, the guard does: it is the last one left.
"""

import contextlib
import os
import select
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from minidist.runtime.forkserver import close_all_but

DETACH = b"d"
MARK_VARIABLE = "MINIDIST_GUARD"
MAX_SWEEPS = 100  # the last step looks again until it finds nobody new: what it kills may just have forked


@dataclass(slots=True)
class Guard:
    """The supervisor's view. `lifeline` must stay open and must reach no other process; closing it ends everything."""

    pid: int
    mark: str
    lifeline: int
    announcements: int
    status: int | None = None  #: once it has ended

    def has_ended(self) -> bool:
        """Whether somebody killed the guard; then nothing would clean up after us."""
        if self.status is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            self.status = status if ended else None
        return self.status is not None

    def finish(self) -> None:
        """Let the guard kill what is left, and wait until it is gone. If it was killed itself, do its last step."""
        os.close(self.lifeline)
        if self.status is None:
            _, self.status = os.waitpid(self.pid, 0)
        if self.status:
            _kill_marked(self.mark)


def full_mark(token: str) -> str:
    """What to put into MARK_VARIABLE. What runs inside another cluster's node goes with both."""
    outer = os.environ.get(MARK_VARIABLE)
    return f"{outer}:{token}" if outer else token


@contextlib.contextmanager
def watching() -> Iterator[str]:
    """Guard what the caller runs meanwhile: nothing that carries this mark outlives the block, nor this process.

    Gives the value for MARK_VARIABLE. The command may stay in the terminal's process group, so that Ctrl-C reaches it.
    """
    token = os.urandom(16).hex()
    launcher_pipe, kept_open = os.pipe()  # the lifeline is ours and says enough
    guard = start(launcher_pipe, token)
    try:
        yield full_mark(token)
    finally:
        guard.finish()
        os.close(guard.announcements)
        os.close(kept_open)


def start(launcher_pipe: int, mark: str, temporary: str = "") -> Guard:
    """Fork the guard. `launcher_pipe` is the reading end of the launcher's pipe; it is closed here. `temporary` is a
    directory, as an absolute path, that is to go when the launcher has died.

    The caller keeps `lifeline` to itself and hands `announcements` to the fork server.
    """
    read_lifeline, lifeline = os.pipe()
    read_announcements, announcements = os.pipe()
    supervisor_pid = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
                signal.signal(number, signal.SIG_IGN)
            null = os.open(os.devnull, os.O_RDWR)
            for standard in (0, 1, 2):
                os.dup2(null, standard)
            close_all_but(read_lifeline, launcher_pipe, read_announcements)
            detached = _watch(read_lifeline, launcher_pipe, read_announcements, supervisor_pid)
            _kill_marked(mark)
            if temporary and not detached and _has_ended(launcher_pipe):
                _remove(temporary)
            os._exit(0)
        finally:
            os._exit(1)
    for descriptor in (read_lifeline, read_announcements, launcher_pipe):
        os.close(descriptor)
    return Guard(pid, mark, lifeline, announcements)


def _watch(lifeline: int, launcher_pipe: int, announcements: int, supervisor_pid: int) -> bool:
    """Wait for an end and kill every group; whether the launcher had left the cluster running."""
    detached = False
    poller = select.poll()
    for descriptor in (lifeline, launcher_pipe, announcements):
        os.set_blocking(descriptor, False)
        poller.register(descriptor, select.POLLIN)
    groups = _Groups(announcements)
    while True:
        ready = {descriptor for descriptor, _ in poller.poll()}
        if announcements in ready and not groups.read():
            poller.unregister(announcements)
        if lifeline in ready:
            break
        if launcher_pipe in ready:
            if os.read(launcher_pipe, 16) != DETACH:
                if os.getppid() == supervisor_pid:
                    _kill(os.kill, supervisor_pid)
                break
            detached = True
            poller.unregister(launcher_pipe)
    groups.kill_all()
    return detached


def _has_ended(launcher_pipe: int) -> bool:
    """Whether nobody holds the writing end any more."""
    try:
        return not os.read(launcher_pipe, 1)
    except BlockingIOError:
        return False


def _remove(directory: str) -> None:
    """Remove it, in the face of processes that have been killed and are still about to end."""
    import shutil

    for _ in range(MAX_SWEEPS):
        shutil.rmtree(directory, ignore_errors=True)
        if not os.path.exists(directory):
            return


class _Groups:
    """The process groups alive, as announced: `s PID` the fork server's, `+ PID` a child's, `- PID` one that ended."""

    def __init__(self, announcements: int) -> None:
        self._announcements = announcements
        self._rest = b""
        self._server: int | None = None
        self._children: dict[int, None] = {}

    def read(self) -> bool:
        """Take in what was announced; False at end-of-file."""
        while True:
            try:
                data = os.read(self._announcements, 65536)
            except BlockingIOError:
                return True
            if not data:
                return False
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                self._take(line)

    def _take(self, line: bytes) -> None:
        sign, _, number = line.partition(b" ")
        if sign == b"s":
            self._server = int(number)
        elif sign == b"+":
            self._children[int(number)] = None
        else:
            self._children.pop(int(number), None)

    def kill_all(self) -> None:
        self.read()
        if self._server is not None:
            _kill(os.killpg, self._server)
            _kill(os.kill, self._server)  # announced, and not yet in a group of its own
        self.read()
        for group in self._children:
            _kill(os.killpg, group)


def _kill(function: object, number: int) -> None:
    try:
        function(number, signal.SIGKILL)  # type: ignore[operator]
    except (ProcessLookupError, PermissionError):
        pass


def _kill_marked(mark: str) -> None:
    """SIGKILL every process that inherited the mark. Needs /proc; elsewhere the process groups have to do."""
    killed: set[str] = set()
    for _ in range(MAX_SWEEPS):
        new = _marked(mark) - killed
        if not new:
            return
        for name in new:
            _kill(os.kill, int(name))
        killed |= new


def _marked(mark: str) -> set[str]:
    """The numbers of the processes that carry the mark, this one not among them."""
    try:
        numbers = [name for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return set()
    found = set()
    for name in numbers:
        try:
            environment = Path(f"/proc/{name}/environ").read_bytes()
        except OSError:
            continue
        if mark.encode() in environment and int(name) != os.getpid():
            found.add(name)
    return found
