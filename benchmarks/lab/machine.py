"""What the machine is, and where its processor time went: the facts that every result is recorded with.

Two counters tell whether a throughput means anything. `/proc/stat` says how busy a core was, whoever used it: a
server whose core was not busy was not the limit. `/proc/PID/stat` says what one server's processes used, which is the
cost of an operation even when something else was the limit. Both count in clock ticks of usually 10 ms, so a
measurement takes seconds.
"""

import contextlib
import os
import platform
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
IDLE_FIELDS = (3, 4)  # idle and iowait, of the fields user nice system idle iowait irq softirq steal (proc(5))


@dataclass(frozen=True)
class Cores:
    """Which core serves and which one sends the load."""

    server: int
    load: int


def pick_cores() -> Cores:
    """The first two cores that this process may use."""
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        raise SystemExit("needs two cores: one for the server, one for the load")
    return Cores(server=allowed[0], load=allowed[1])


@contextlib.contextmanager
def staying_on(core: int) -> Iterator[None]:
    """This process, which acts as a client, stays on one core during the block."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


@dataclass(frozen=True)
class Sample:
    """Time, per-core busy time and the processor time of some processes, at one moment; in seconds."""

    at_s: float
    core_busy_s: dict[int, float]
    process_s: float


def sample(pids: list[int]) -> Sample:
    """Read the counters now. `pids` are a server's processes; those below them count as well."""
    busy = {}
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name.startswith("cpu") and name != "cpu":
            ticks = [int(field) for field in fields[:8]]
            busy[int(name[3:])] = (sum(ticks) - sum(ticks[field] for field in IDLE_FIELDS)) / TICKS_PER_S
    return Sample(time.monotonic(), busy, sum(process_seconds(pid) for pid in with_descendants(pids)))


@dataclass(frozen=True)
class Usage:
    """What happened between two samples."""

    seconds: float
    server_core: float  # 0 … 1
    load_core: float
    server_cpu_s: float


def usage(before: Sample, after: Sample, cores: Cores) -> Usage:
    """The difference of two samples of the same processes."""
    seconds = after.at_s - before.at_s

    def busy(core: int) -> float:
        return (after.core_busy_s[core] - before.core_busy_s[core]) / seconds

    return Usage(seconds, busy(cores.server), busy(cores.load), after.process_s - before.process_s)


def stat_fields(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the command's name, which may hold spaces: the first is the state, field 3."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def process_seconds(pid: int) -> float:
    """User and system time of a process with all its threads (fields 14 and 15)."""
    fields = stat_fields(pid)
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def with_descendants(pids: list[int]) -> list[int]:
    """These processes and all below them: nginx has workers, minidist --workers as well."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(path.name)] = int(stat_fields(int(path.name))[1])
        except (OSError, IndexError):
            continue  # it ended while we looked
    found = list(pids)
    for pid in found:  # grows while it is read
        found += [child for child, parent in parents.items() if parent == pid and child not in found]
    return found


def resident_bytes(pid: int) -> int:
    """Resident memory of one process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def peak_bytes(pid: int) -> int:
    """The most resident memory that one process ever had (VmHWM)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def busy_before(seconds: float = 1.0) -> float:
    """How much of the machine others use, 0 … 1: results of a busy machine are worth nothing."""
    before = sample([])
    time.sleep(seconds)
    after = sample([])
    used = sum(after.core_busy_s.values()) - sum(before.core_busy_s.values())
    return used / (after.at_s - before.at_s) / len(after.core_busy_s)


def facts() -> dict[str, Any]:
    """Processor, cores, memory, kernel, Python: what a reader needs to judge a figure."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "kernel": platform.release(),
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", ""),
        "python": platform.python_version(),
    }


def commit() -> str:
    """The commit that is measured; with `+` when files under version control differ from it."""
    short = git("rev-parse", "--short=12", "HEAD")
    return f"{short}+" if git("status", "--porcelain", "--untracked-files=no") else short


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
