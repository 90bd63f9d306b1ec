"""The supervisor: the process that owns a cluster's nodes, behind `up` in the foreground as behind `up -d`.

The launcher (the process that was typed) forks it at once and stays its client; see `launch()`. In its first moments
it forks, while it has no loop and no threads, the two processes that everything else rests on:

    launcher ─fork─▶ supervisor ─fork─▶ guard          kills everything when launcher or supervisor is gone
                                └─fork─▶ fork server ─fork─▶ node, node, node …

The fork server imports the components while the supervisor reads the topology. From then on the supervisor is an
asyncio program: a control socket for the verbs, a `Cluster`, and one event that means `down`.

Launcher and supervisor share a socket for one message: that the control socket serves, or why not. They share a pipe
(`lifeline`), whose end in the launcher the guard watches; `Launch.detach()` is what lets `up -d` leave.
"""

import contextlib
import json
import os
import re
import signal
import socket
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from minidist.cluster.rundir import BASE, RunDir

if TYPE_CHECKING:
    import asyncio

    from minidist.cluster.cluster import Cluster
    from minidist.cluster.guard import Guard
    from minidist.cluster.topology import Topology
    from minidist.runtime.forkserver import ForkServer

DEFAULT_FILE = "minidist.toml"
DEFAULT_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 5.0
ATTACH_TIMEOUT_S = 5.0  # a launcher that has not come by then is gone


@dataclass(frozen=True, slots=True)
class UpOptions:
    """What was asked for: the topology file, a name or run directory other than the default, how long to wait.

    `temporary` is a directory that is removed when the launcher has been killed and cannot do it.
    """

    file: str = DEFAULT_FILE
    name: str = ""
    run_dir: str = ""
    timeout_s: float = DEFAULT_TIMEOUT_S
    temporary: str = ""


# --- The launcher's end ----------------------------------------------------------------------------------------------


class LaunchError(Exception):
    """The supervisor could not begin; `exit_code` is the verb's."""

    def __init__(self, text: str, exit_code: int) -> None:
        super().__init__(text)
        self.exit_code = exit_code


@dataclass(slots=True)
class Launch:
    """A supervisor that serves. As long as this process lives and has not detached, so does the cluster."""

    run_dir: RunDir
    pid: int
    already_running: bool
    lifeline: int

    def detach(self) -> None:
        """From now on the cluster lives on without this process."""
        from minidist.cluster.guard import DETACH

        os.write(self.lifeline, DETACH)
        os.close(self.lifeline)


def launch(options: UpOptions) -> Launch:
    """Fork a supervisor; returns when its control socket serves, before the nodes are ready. Raises LaunchError.

    When the run directory is in use, the supervisor found there is the answer (`already_running`). Call it before
    anything is imported that need not be, in a process without threads.
    """
    ours, theirs = socket.socketpair()
    watched, lifeline = os.pipe()
    pid = os.fork()
    if pid == 0:
        _be_supervisor(options, theirs, watched)
    theirs.close()
    os.close(watched)
    with ours, ours.makefile("rb") as reader:
        line = reader.readline()
    if not line:
        raise LaunchError("the supervisor ended without a word", 1)
    message = json.loads(line)
    if "error" in message:
        os.waitpid(pid, 0)
        raise LaunchError(message["error"], message["exit"])
    return Launch(RunDir(Path(message["run_dir"])), pid, message["already_running"], lifeline)


# --- The process -----------------------------------------------------------------------------------------------------


def _be_supervisor(options: UpOptions, launcher: socket.socket, watched: int) -> NoReturn:
    from minidist.runtime.forkserver import close_all_but

    code = 1
    try:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(null, standard)
        close_all_but(launcher.fileno(), watched)
        code = _supervise(options, launcher, watched)
    except OSError as error:  # what the machine refuses: the run directory, a descriptor, a process
        _tell(launcher, error=f"{error.filename or 'supervisor'}: {error.strerror}", exit=1)
        traceback.print_exc()
    except BaseException as error:
        _tell(launcher, error=f"the supervisor failed: {error!r}", exit=1)
        traceback.print_exc()
    finally:
        os._exit(code)


def _supervise(options: UpOptions, launcher: socket.socket, watched: int) -> int:
    from minidist.cluster import guard
    from minidist.runtime.forkserver import ForkServer

    token = os.urandom(16).hex()
    guarding = guard.start(watched, token, options.temporary and os.path.abspath(options.temporary))
    fork_server = ForkServer.start(guarding.announcements, _needed_modules(options.file))
    try:
        supervisor = Supervisor(options, launcher, fork_server, guarding, guard.full_mark(token))
        code = supervisor.run()
    finally:
        guarding.finish()
    return code


def _needed_modules(file: str) -> list[str]:
    """What the nodes will import, guessed from a first look at the file, so that the fork server can begin at once.

    A wrong guess costs nothing but time; whether the file is right is found out later.
    """
    try:
        text = Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return []
    components = dict.fromkeys(re.findall(r"""^\s*component\s*=\s*["']([a-z]+)["']""", text, re.MULTILINE))
    daemons = ["minidist.runtime.daemon"]
    for part in ("server", "later"):
        daemons += [f"minidist.components.{name}.{part}" for name in components]
    return ["minidist.cli", *daemons] * bool(components) + ["minidist.run"] * ("entry" in text)


def _tell(launcher: socket.socket, **message: Any) -> None:
    """The one message to the launcher; it may be gone, and the first message is the only one that counts."""
    try:
        launcher.sendall(json.dumps(message).encode() + b"\n")
        launcher.close()
    except OSError:
        pass


def read_topology(file: str, name: str) -> "Topology":
    """The checked topology of a file. Raises TopologyError, also when there is no such file."""
    from minidist.cluster.topology import NoTopologyFile, TopologyError, Words, parse

    path = Path(file)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise NoTopologyFile(file) from error
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise TopologyError(file, "", Words(str(reason)), "a readable topology file") from error
    return parse(text, file=file, directory_name=path.absolute().parent.name, name=name)


def _log_error(error: BaseException) -> None:
    traceback.print_exception(error)


class Supervisor:
    """Reads the topology, takes the run directory, runs the cluster until `down`."""

    def __init__(
        self, options: UpOptions, launcher: socket.socket, fork_server: "ForkServer", guard: "Guard", mark: str
    ) -> None:
        self.options = options
        self.launcher = launcher
        self.fork_server = fork_server
        self.guard = guard
        self.mark = mark
        self.topology: Topology
        self.run_dir: RunDir
        self.cluster: Cluster
        self.pid = os.getpid()
        self.progress: list[str] = []
        self.outcome: asyncio.Future[str]  #: "" when everything came up; else why not, once all is stopped again
        self.down: asyncio.Future[float]  #: the time-out of the stop
        self.attached: asyncio.Event  #: the launcher has come to hear the outcome

    def run(self) -> int:
        """To the end; the exit code is nobody's but the log's."""
        from minidist.cluster.topology import TopologyError

        try:
            self.topology = read_topology(self.options.file, self.options.name)
        except TopologyError as error:
            _tell(self.launcher, error=str(error), exit=2)
            return 2
        self.run_dir = RunDir(Path(self.options.run_dir or Path(BASE) / self.topology.name))
        lock = self.run_dir.take()
        if lock is None:
            _tell(self.launcher, run_dir=str(self.run_dir.path), already_running=True)
            return 0
        os.truncate(lock, 0)
        os.write(lock, str(os.getpid()).encode())
        self.run_dir.clear()
        self.redirect_output()
        import asyncio

        with asyncio.Runner() as runner:
            return runner.run(self.serve())

    def redirect_output(self) -> None:
        log = os.open(self.run_dir.supervisor_log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)

    async def serve(self) -> int:
        import asyncio

        from minidist.cluster.cluster import Cluster
        from minidist.cluster.control_server import ControlServer
        from minidist.cluster.events import Events
        from minidist.cluster.handlers import Handlers
        from minidist.cluster.processes import Processes
        from minidist.cluster.programs import Programs
        from minidist.cluster.reservations import PortTaken

        loop = asyncio.get_running_loop()
        self.outcome, self.down, self.attached = loop.create_future(), loop.create_future(), asyncio.Event()
        events = Events(self.run_dir.events)
        processes = Processes(self.fork_server, self.abandon)
        directory = str(Path(self.options.file).absolute().parent)
        programs = Programs(self.topology, self.run_dir, directory, self.mark, os.urandom(16).hex())
        self.cluster = Cluster(self.topology, self.run_dir, processes, programs, events)
        events.heard = self.cluster.faults.heard
        try:
            for group in self.topology.groups.values():
                self.cluster.add_group(group)
        except PortTaken as error:
            _tell(self.launcher, error=str(error), exit=1)
            processes.close()
            return 1
        self.cluster.faults.add_links(self.topology.links, self.topology.regions)
        control = ControlServer(self.run_dir, Handlers(self).table(), _log_error)
        await control.start()
        self.handle_signals()
        _tell(self.launcher, run_dir=str(self.run_dir.path), already_running=False)
        code = await self.live()
        events.close()
        await control.close()
        processes.close()
        return code

    async def live(self) -> int:
        """Start everything, wait for `down`, stop everything; `outcome` says when it is up, or is gone again."""
        import asyncio

        self.cluster.events.emit("", "up", file=self.topology.file)
        trimming = asyncio.create_task(self.cluster.keep_logs_short())
        starting = asyncio.create_task(self.start_everything(self.options.timeout_s))
        either: list[asyncio.Future[Any]] = [starting, self.down]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        failure = starting.result() if starting.done() else "it was stopped before everything was ready"
        if not failure:
            self.outcome.set_result("")
            await asyncio.wait([self.down])
        starting.cancel()
        await self.cluster.stop_groups(self.down.result() if self.down.done() else STOP_TIMEOUT_S)
        trimming.cancel()
        self.cluster.events.emit("", "down")
        if failure:
            self.outcome.set_result(failure)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.attached.wait(), ATTACH_TIMEOUT_S)
        return 1 if failure else 0

    async def start_everything(self, timeout_s: float) -> str:
        """Start what has no process and wait until all groups are ready: "", or why it did not come to that."""
        import asyncio

        from minidist.cluster.cluster import ClusterError

        began_s = time.monotonic()
        try:
            async with asyncio.timeout(timeout_s):
                await self.cluster.start_groups(self.progress.append)
        except ClusterError as error:
            return str(error)
        except TimeoutError:
            return f"not ready within {timeout_s:g} s:\n{self.cluster.unready(self.cluster.nodes)}"
        self.progress.append(f"{self.topology.name} is up ({time.monotonic() - began_s:.2f} s)")
        return ""

    def handle_signals(self) -> None:
        import asyncio

        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self.go_down)
        loop.add_signal_handler(signal.SIGHUP, lambda: None)
        loop.add_signal_handler(signal.SIGINT, lambda: None)
        loop.add_signal_handler(signal.SIGCHLD, self.check_guard)

    def go_down(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        if not self.down.done():
            self.down.set_result(timeout_s)

    def check_guard(self) -> None:
        if self.guard.has_ended():
            print("the guard ended; going down, since nothing else would clean up after us", file=sys.stderr)
            self.go_down()

    def abandon(self) -> None:
        """The fork server is gone and with it all hold on the nodes: leave everything to the guard."""
        print("the fork server ended; leaving the nodes to the guard", file=sys.stderr)
        os._exit(1)
