"""The fork server: one process that has imported everything already and makes the nodes of a cluster by forking.

Starting an interpreter and importing a component costs a hundred milliseconds and more of processor time; a fork of a
process that has done so costs two or three. So a launcher first forks a server, which imports while the launcher reads
its files, and then asks it for one child after the other. The server has no event loop and no thread, which is what
makes forking it safe (and what Python 3.12 and later check); `gc.freeze()` keeps the imported objects in pages that
parent and children share.

    client                               server                                child
    spawn {id, argv | target, env, …} ─▶ fork                               ─▶ announce, own process group,
         + descriptors of stdout, stderr                                       descriptors, directory, environment,
    {"spawned": id, "pid": …}         ◀─                                       exec argv, or call target(args)
    {"signal": pid, "number": 15}     ─▶ killpg
    {"exited": pid, "code": …}        ◀─ reap                               ◀─ exit

The server is the parent, so it alone may signal by number without meeting a number that was reused: it signals only
what it has not yet reaped. Each child leads a process group of its own. When a child ends, the server kills the rest of
its group *before* reaping it, while the dead leader still holds the number.

`announcements` is a pipe to whoever must know the groups should this process die (the launcher's guard). A child is
announced *before* it leaves the server's own group; see minidist.cluster.guard for why that order leaves no gap.

Messages are JSON with a four-byte length; descriptors travel beside the length (SCM_RIGHTS). At end-of-file the server
kills its children, sees them end and goes: nobody can want them any more.
"""

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

MAX_MESSAGE_BYTES = 1024 * 1024  # an environment and a command line; Linux takes 2 MB of both at most
MAX_DESCRIPTORS = 16
LENGTH_BYTES = 4


class ForkServer:
    """The client's end. Blocking only for the microseconds a small message takes; replies come through `receive()`.

    `channel` becomes readable when the server has something to say, or is gone.
    """

    def __init__(self, pid: int, channel: socket.socket) -> None:
        self.pid = pid
        self.channel = channel
        self._received = bytearray()
        self._next_id = 1

    @classmethod
    def start(cls, announcements: int, preload: Sequence[str] = ()) -> "ForkServer":
        """Fork the server now; the caller must have no threads. `preload` are modules it imports at once; one that
        cannot be imported is left to the child that needs it, and to its log.

        The writing end of `announcements` moves to the server and is closed here.
        """
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            try:
                close_all_but(theirs.fileno(), announcements)
                _Server(theirs, announcements).run(preload)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(1)
        theirs.close()
        os.close(announcements)
        return cls(pid, ours)

    def spawn(
        self,
        *,
        argv: Sequence[str] | None = None,
        target: str = "",
        args: Sequence[str] = (),
        env: Mapping[str, str | None],
        cwd: str,
        stdout: int,
        stderr: int,
        title: str = "",
    ) -> int:
        """Ask for a child that executes `argv`, or calls `target` ("module:function") with the list `args`.

        `env` is what differs from the server's environment (None removes). stdin is /dev/null. A target's return value
        is the exit code. Returns the request's id; the pid follows as `{"spawned": id, "pid": pid}`.
        """
        request_id, self._next_id = self._next_id, self._next_id + 1
        request = {
            "spawn": request_id,
            "argv": list(argv) if argv is not None else None,
            "target": target,
            "args": list(args),
            "env": dict(env),
            "cwd": cwd,
            "title": title,
        }
        _send(self.channel, request, (stdout, stderr))
        return request_id

    def signal(self, pid: int, number: int) -> None:
        """Signal the process group of a child; nothing happens when it has ended already."""
        _send(self.channel, {"signal": pid, "number": int(number)})

    def receive(self) -> list[dict[str, Any]]:
        """What the server said since the last call, without waiting. Raises EOFError when it is gone."""
        try:
            while data := self.channel.recv(65536, socket.MSG_DONTWAIT):
                self._received += data
            gone = True
        except BlockingIOError:
            gone = False
        except OSError:
            gone = True
        messages = []
        while len(self._received) >= LENGTH_BYTES:
            end = LENGTH_BYTES + int.from_bytes(self._received[:LENGTH_BYTES], "big")
            if len(self._received) < end:
                break
            messages.append(json.loads(self._received[LENGTH_BYTES:end]))
            del self._received[:end]
        if gone and not messages:
            raise EOFError("the fork server is gone")
        return messages

    def close(self) -> None:
        """End the server and all its children; returns when it is reaped."""
        self.channel.close()
        os.waitpid(self.pid, 0)


def _send(channel: socket.socket, message: Mapping[str, Any], descriptors: Sequence[int] = ()) -> None:
    body = json.dumps(message).encode()
    if len(body) > MAX_MESSAGE_BYTES:
        raise ValueError(f"a request of {len(body)} bytes, at most {MAX_MESSAGE_BYTES}")
    length = len(body).to_bytes(LENGTH_BYTES, "big")
    if descriptors:
        socket.send_fds(channel, [length], list(descriptors))
        channel.sendall(body)
    else:
        channel.sendall(length + body)


def close_all_but(*descriptors: int) -> None:
    """Let go of every descriptor except these and the standard three.

    A forked process must not keep open what it knows nothing about: somebody may wait for its end-of-file.
    """
    for name in os.listdir("/dev/fd"):
        if int(name) > 2 and int(name) not in descriptors:
            with contextlib.suppress(OSError):  # the listing's own is closed already
                os.close(int(name))


class _Server:
    """The process itself: one `poll` over the client's channel and the wake-ups of SIGCHLD."""

    def __init__(self, channel: socket.socket, announcements: int) -> None:
        self._channel = channel
        self._announcements = announcements
        self._children: dict[int, None] = {}
        self._woken, self._wake = os.pipe()

    def run(self, preload: Sequence[str]) -> NoReturn:
        self._announce("s", os.getpid())
        os.setpgid(0, 0)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        for descriptor in (self._woken, self._wake):
            os.set_blocking(descriptor, False)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        gc.disable()
        _import_all(preload)
        poller = select.poll()
        poller.register(self._channel, select.POLLIN)
        poller.register(self._woken, select.POLLIN)
        while True:
            ready = {descriptor for descriptor, _ in poller.poll()}
            if self._woken in ready:
                os.read(self._woken, 4096)
                self._reap()
            if self._channel.fileno() in ready:
                self._serve_one()

    def _serve_one(self) -> None:
        received = self._receive()
        if received is None:
            self._kill_everything()
        request, descriptors = received
        try:
            if "spawn" in request:
                self._spawn(request, descriptors)
            elif request["signal"] in self._children:
                os.killpg(request["signal"], request["number"])
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _receive(self) -> tuple[dict[str, Any], list[int]] | None:
        """The next request with its descriptors; None when the client is gone."""
        length, descriptors, _, _ = socket.recv_fds(self._channel, LENGTH_BYTES, MAX_DESCRIPTORS)
        while 0 < len(length) < LENGTH_BYTES and (more := self._channel.recv(LENGTH_BYTES - len(length))):
            length += more
        body = bytearray()
        wanted = int.from_bytes(length, "big")
        while len(body) < wanted and (data := self._channel.recv(wanted - len(body))):
            body += data
        if not length or len(body) < wanted:
            return None
        return json.loads(body), descriptors

    def _spawn(self, request: dict[str, Any], descriptors: list[int]) -> None:
        gc.freeze()
        pid = os.fork()
        if pid == 0:
            _become(request, descriptors, self)
        self._lead_own_group(pid)
        self._children[pid] = None
        _send(self._channel, {"spawned": request["spawn"], "pid": pid})

    def _lead_own_group(self, pid: int) -> None:
        """Done by parent and child alike: whoever comes first, nobody sees the child outside its group."""
        self._announce("+", pid)
        with contextlib.suppress(PermissionError, ProcessLookupError):  # the child has done it, and executed or ended
            os.setpgid(pid, pid)

    def _announce(self, sign: str, pid: int) -> None:
        with contextlib.suppress(BrokenPipeError):  # nobody listens any more: the client's business, it will see
            os.write(self._announcements, f"{sign} {pid}\n".encode())

    def _reap(self) -> None:
        for pid in list(self._children):
            code = _reaped(pid)
            if code is None:
                continue
            del self._children[pid]
            self._announce("-", pid)
            with contextlib.suppress(OSError):  # the client may be gone; the next read says so
                _send(self._channel, {"exited": pid, "code": code})

    def _kill_everything(self) -> NoReturn:
        for pid in self._children:
            _kill_group(pid)
        for pid in self._children:
            os.waitpid(pid, 0)
        os._exit(0)

    def forget(self) -> None:
        """In a child: let go of all that belongs to the server."""
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        self._channel.close()
        for descriptor in (self._announcements, self._woken, self._wake):
            os.close(descriptor)

    def lead_own_group(self) -> None:
        self._lead_own_group(os.getpid())


def _reaped(pid: int) -> int | None:
    """The exit code of a child that has ended, with the rest of its group killed; None while it lives."""
    if hasattr(os, "waitid"):
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return None
        _kill_group(pid)  # before it is reaped, its number cannot be somebody else's
        _, status = os.waitpid(pid, 0)
    else:  # macOS before Python 3.13
        ended, status = os.waitpid(pid, os.WNOHANG)
        if not ended:
            return None
        _kill_group(pid)
    return os.waitstatus_to_exitcode(status)


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: EPERM when only the dead leader is left
        os.killpg(pid, signal.SIGKILL)


def _import_all(modules: Sequence[str]) -> None:
    for module in modules:
        with contextlib.suppress(Exception):
            importlib.import_module(module)


def _become(request: dict[str, Any], descriptors: list[int], server: _Server) -> NoReturn:
    """Turn a fresh fork into the child that was asked for."""
    code = 1
    try:
        server.lead_own_group()
        server.forget()
        null = os.open(os.devnull, os.O_RDONLY)
        for standard, descriptor in enumerate((null, *descriptors)):
            os.dup2(descriptor, standard)
        for descriptor in (null, *descriptors):
            os.close(descriptor)
        os.chdir(request["cwd"])
        for name, value in request["env"].items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        if request["argv"] is not None:
            code = _execute(request["argv"])
        else:
            code = _call(request)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _execute(argv: list[str]) -> int:
    """Replace this process; comes back only when that is impossible, with a shell's exit codes for it."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and an exec would inherit that
    try:
        os.execvp(argv[0], argv)
    except FileNotFoundError:
        print(f"cannot start {argv[0]}: not found in PATH", file=sys.stderr)  # noqa: T201
        return 127
    except OSError as error:
        print(f"cannot start {argv[0]}: {error.strerror}", file=sys.stderr)  # noqa: T201
        return 126


def _call(request: dict[str, Any]) -> int:
    """Run a Python function as a program of its own would: its own title, line-buffered output, exit functions."""
    import atexit

    atexit._clear()  # what the launcher registered is the launcher's
    signal.signal(signal.SIGINT, signal.default_int_handler)
    gc.enable()
    _set_title(request["title"])
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    module, _, function = request["target"].partition(":")
    sys.argv = [request["target"], *request["args"]]
    try:
        main: Callable[[list[str]], int | None] = getattr(importlib.import_module(module), function)
        code = main(list(request["args"])) or 0
    except SystemExit as leaving:
        code = _exit_code(leaving)
    finally:
        _join_threads()
        atexit._run_exitfuncs()
    return code


def _exit_code(leaving: SystemExit) -> int:
    if leaving.code is None or isinstance(leaving.code, int):
        return leaving.code or 0
    print(leaving.code, file=sys.stderr)  # noqa: T201
    return 1


def _join_threads() -> None:
    """What the interpreter does before exit functions run: let executors finish their work."""
    import threading

    threading._shutdown()  # type: ignore[attr-defined]


def _set_title(title: str) -> None:
    """Show the node's name in ps, top and pgrep (Linux cuts it to 15 characters)."""
    if title and os.path.exists("/proc/self/comm"):
        with contextlib.suppress(OSError), open("/proc/self/comm", "w") as file:
            file.write(title)
