"""How much processor time and memory the nodes' process groups take: from /proc on Linux, from `ps` elsewhere."""

import os
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

# Columns of /proc/PID/stat after the command name (proc(5)), counted from the state.
PGRP, UTIME, STIME, RSS = 2, 11, 12, 21


@dataclass(slots=True)
class Usage:
    """Of one process group: seconds of processor time since its start, bytes of resident memory."""

    cpu_s: float = 0.0
    rss_bytes: int = 0


def of_groups(groups: Iterable[int]) -> dict[int, Usage]:
    """The usage of each of these process groups, its present members together."""
    found = {group: Usage() for group in groups}
    for group, cpu_s, rss_bytes in _processes():
        if group in found:
            found[group].cpu_s += cpu_s
            found[group].rss_bytes += rss_bytes
    return found


def _processes() -> Iterable[tuple[int, float, int]]:
    return _from_proc() if os.path.isdir("/proc/self") else _from_ps()


def _from_proc() -> Iterable[tuple[int, float, int]]:
    tick_s, page_bytes = 1 / os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                columns = Path(f"/proc/{name}/stat").read_bytes().rpartition(b")")[2].split()
            except OSError:
                continue  # it ended meanwhile
            cpu_s = (int(columns[UTIME]) + int(columns[STIME])) * tick_s
            yield int(columns[PGRP]), cpu_s, int(columns[RSS]) * page_bytes


def _from_ps() -> Iterable[tuple[int, float, int]]:
    listing = subprocess.run(["ps", "-axo", "pgid=,time=,rss="], capture_output=True, text=True, check=False).stdout
    for line in listing.splitlines():
        group, cpu, rss_kib = line.split()
        parts = [float(part) for part in cpu.replace("-", ":").split(":")]
        cpu_s = sum(part * size for part, size in zip(reversed(parts), (1, 60, 3600, 86400), strict=False))
        yield int(group), cpu_s, int(rss_kib) * 1024
