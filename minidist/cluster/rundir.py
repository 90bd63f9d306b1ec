"""The run directory: everything one cluster keeps, `.minidist/NAME/` unless `--run-dir` says otherwise.

    lock              held (flock) by the supervisor as long as it lives: a directory whose lock is free is nobody's
    control.sock      where verbs talk to the supervisor (control.py)
    supervisor.log    what the supervisor itself has to say; empty in peace
    events.jsonl      events since the last `up`, the launcher's and the nodes' own; beyond 16 MB only the newest
    logs/NODE.log     a node's output, since the last `up`; beyond 64 MB it begins anew (so does supervisor.log), and
                      the last 4 MB before are NODE.log.old
    data/NODE/        a component's data; it survives `down`, and goes with `down --clean`

A supervisor that was killed leaves its files behind; the next `up` takes the free lock and starts over.
"""

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

BASE = ".minidist"
OWN_DESCRIPTORS = "/proc/self/fd"
MAX_SOCKET_PATH_BYTES = 100  # the kernel's limit is 108 on Linux and 104 on macOS


class RunDir:
    """The files of one cluster."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.lock = self.path / "lock"
        self.socket = self.path / "control.sock"
        self.supervisor_log = self.path / "supervisor.log"
        self.events = self.path / "events.jsonl"
        self.logs = self.path / "logs"
        self.data = self.path / "data"

    @property
    def name(self) -> str:
        return self.path.name

    def log_of(self, node: str) -> Path:
        return self.logs / f"{node}.log"

    def data_of(self, node: str) -> Path:
        return self.data / node

    def take(self) -> int | None:
        """Make the directory and take its lock; the descriptor to keep open, or None when it is in use."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.path.parent.name == BASE:
            with contextlib.suppress(FileExistsError), open(self.path.parent / ".gitignore", "x") as file:
                file.write("*\n")
        descriptor = os.open(self.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return descriptor

    def clear(self) -> None:
        """Forget the previous run's logs and events; the lock is ours. Data stays."""
        for path in (self.socket, self.events, self.supervisor_log, self.supervisor_log.with_suffix(".log.old")):
            path.unlink(missing_ok=True)
        import shutil

        shutil.rmtree(self.logs, ignore_errors=True)
        self.logs.mkdir()

    def in_use(self) -> bool:
        """Whether a supervisor lives here."""
        try:
            descriptor = os.open(self.lock, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def supervisor_pid(self) -> int | None:
        """The process that took the lock last."""
        try:
            return int(self.lock.read_text(encoding="ascii"))
        except (OSError, ValueError):
            return None

    def wait_until_free(self) -> None:
        """Returns when the supervisor is gone; the kernel drops its lock with its last breath."""
        with contextlib.suppress(FileNotFoundError), open(self.lock, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH)

    @contextlib.contextmanager
    def short_socket_path(self) -> Iterator[str]:
        """A path to the socket that fits into a socket address: where it is too long, through the directory's
        descriptor, or a symbolic link (macOS). Raises OSError."""
        if len(os.fsencode(self.socket)) <= MAX_SOCKET_PATH_BYTES:
            yield str(self.socket)
            return
        if os.path.isdir(OWN_DESCRIPTORS):
            directory = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                yield f"{OWN_DESCRIPTORS}/{directory}/{self.socket.name}"
            finally:
                os.close(directory)
            return
        import tempfile

        with tempfile.TemporaryDirectory(prefix="minidist-") as short:
            os.symlink(self.path, f"{short}/d")
            yield f"{short}/d/{self.socket.name}"

    def connect(self) -> socket.socket | None:
        """A connection to the supervisor; None when there is none."""
        connection = socket.socket(socket.AF_UNIX)
        try:
            with self.short_socket_path() as path:
                connection.connect(path)
        except OSError:
            connection.close()
            return None
        return connection


def running(base: Path = Path(BASE)) -> list[RunDir]:
    """The clusters that run under a base directory, by name."""
    if not base.is_dir():
        return []
    directories = [RunDir(path) for path in sorted(base.iterdir()) if path.is_dir()]
    return [directory for directory in directories if directory.in_use()]
