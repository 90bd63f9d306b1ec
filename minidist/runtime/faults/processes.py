"""Whose connection is this? The process group behind the other end of a loopback connection, from /proc (Linux).

A user's own program says no name when it connects, so faults that name it find it here: the socket with our peer's
address is looked up in /proc/net/tcp{,6} (proc(5)), its inode among the descriptors of the processes of the groups in
question. Only done while a fault with such a peer is set, once for each connection.
"""

import os
import re

INODE_COLUMN = 9
LOCAL_COLUMN = 1


def inode_of_port(port: int, remote_port: int) -> int | None:
    """The inode of the local TCP socket bound to `port` and connected to `remote_port`; None when there is none."""
    ends = (f":{port:04X}", f":{remote_port:04X}")
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table, encoding="ascii") as file:
                for line in file:
                    columns = line.split()
                    if columns[LOCAL_COLUMN].endswith(ends[0]) and columns[LOCAL_COLUMN + 1].endswith(ends[1]):
                        return int(columns[INODE_COLUMN])
        except OSError:
            continue
    return None


def group_holding(inode: int, pgids: frozenset[int]) -> int | None:
    """Which of these process groups has a descriptor of the socket; None when none has."""
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            pgid = os.getpgid(int(entry))
        except OSError:
            continue  # it ended meanwhile
        if pgid in pgids and _holds(int(entry), inode):
            return pgid
    return None


def _holds(pid: int, inode: int) -> bool:
    wanted = f"socket:[{inode}]"
    directory = f"/proc/{pid}/fd"
    try:
        descriptors = os.listdir(directory)
    except OSError:
        return False  # it ended meanwhile, or is not ours to look into
    for descriptor in descriptors:
        try:
            if os.readlink(f"{directory}/{descriptor}") == wanted:
                return True
        except OSError:
            continue  # this one was closed meanwhile
    return False


def port_of(address: str) -> int | None:
    """The port of a shown socket name such as `127.0.0.1:4711`."""
    match = re.search(r":([0-9]+)$", address)
    return int(match[1]) if match else None
