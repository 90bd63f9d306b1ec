"""The disk of a node: the port (`port`), the real one (`local`), and the layers written against the port only.

port       Disk, File, their promises and their errors     recordlog   the log: checksums, group commit, recovery
faults     the `disk` fault                                recordformat  the bytes of its segments
local      files of this machine                           replace     atomic replace of a small file
thread, pace   where blocking calls run                    spool       memory, then an unlinked file
temporary  data that goes with the process                 watch       change notification
"""

from minidist.runtime.disk.port import (
    DirectoryInUse,
    Disk,
    DiskError,
    DiskFailed,
    DiskFull,
    File,
    FileClosed,
    FileExists,
    FileMissing,
    NotSupported,
    OpenMode,
    PathRefused,
    Stat,
)

__all__ = [
    "DirectoryInUse",
    "Disk",
    "DiskError",
    "DiskFailed",
    "DiskFull",
    "File",
    "FileClosed",
    "FileExists",
    "FileMissing",
    "NotSupported",
    "OpenMode",
    "PathRefused",
    "Stat",
]
