"""`--snapshot FILE`: the cache is warm after a restart. Loaded before the node is ready, written when it stops.

The file has Redis' RDB format (engines/keyspace/snapshots.py). Besides at the end, one is written on BGSAVE and SAVE,
and every `--snapshot-interval` of service time. It goes to FILE.tmp, in steps between which commands run, is synced and
takes the name: whoever looks, after whatever crash, finds the old snapshot or the new one, whole.

A node whose file is damaged does not start, rather than to throw away what may be mended. One that could not start
writes nothing. A snapshot that cannot be written (a full disk) is an error in the log and in INFO; the old one stays.
"""

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from minidist.engines.keyspace.errors import CommandError
from minidist.engines.keyspace.rdb_strings import Malformed
from minidist.engines.keyspace.session import Session
from minidist.engines.keyspace.snapshots import SnapshotReader, SnapshotWriter
from minidist.runtime.clock import ClockTimer
from minidist.runtime.disk.port import Disk, DiskError, File, FileMissing, OpenMode
from minidist.wire.resp_replies import OK, error

if TYPE_CHECKING:
    from minidist.components.cache.server import Cache

PIECE_BYTES = 256 * 1024


class Snapshots:
    """The snapshots of one cache."""

    def __init__(self, node: "Cache") -> None:
        self._node = node
        self._path = node.config.snapshot
        self._task: asyncio.Task[None] | None = None
        self._timer: ClockTimer | None = None
        self._told: list[Session] = []  # who said SAVE
        self._loaded = False
        self.last_ok = True
        self.last_keys = 0

    @property
    def running(self) -> bool:
        return self._task is not None

    # --- loading ----------------------------------------------------------------------------------------------------

    async def load(self) -> None:
        """Take in the file, if there is one. Raises DiskError, also for a file that is no whole snapshot."""
        disk = await self._node.ports.open_disk()
        try:
            file = await disk.open(self._path)
        except FileMissing:
            pass
        else:
            try:
                await self._read(file)
            finally:
                await file.close()
        self._loaded = True
        self.schedule()

    async def _read(self, file: File) -> None:
        service, clock = self._node.service, self._node.clock
        reader = SnapshotReader(service.keyspace)
        at = 0
        try:
            while data := await file.read_at(at, PIECE_BYTES):
                at += len(data)
                reader.feed(data, clock.now_ms())
                while service.keyspace.overfull and service.keyspace.make_room(clock.now_ms()):
                    pass  # one step evicts less than a piece can bring
            reader.end(clock.now_ms())
        except Malformed as problem:
            raise DiskError("load the snapshot", self._path, f"{problem}; to start without it, move it away") from None
        try:
            for source in reader.functions:
                service.scripts.functions.load(source, replace=True)
        except CommandError as problem:
            raise DiskError("load the functions of the snapshot", self._path, str(problem)) from None
        self._node.log.info("snapshot loaded", keys=reader.keys, expired=reader.expired, bytes=at)

    # --- writing ----------------------------------------------------------------------------------------------------

    def schedule(self) -> None:
        """Write one after the interval, from now on."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        interval_ms = self._node.config.snapshot_interval
        if interval_ms:
            self._timer = self._node.clock.call_at(self._node.clock.now_ms() + interval_ms, self._due)

    def _due(self) -> None:
        self.start()
        self.schedule()

    def start(self, session: Session | None = None) -> bool:
        """Begin one; False when one is under way. The session's wait is over when it is written."""
        if self._task is not None:
            return False
        if session is not None:
            self._told.append(session)
        self._task = asyncio.get_running_loop().create_task(self._save())
        return True

    async def _save(self) -> None:
        problem = "the snapshot was given up"  # the bug that did it is in the log
        try:
            await self._write()
            problem = ""
        except DiskError as failed:
            problem = str(failed)
            self._node.log.error("snapshot not written", reason=problem)
        finally:
            self._task = None
            self._tell(problem)

    def _tell(self, problem: str) -> None:
        """It is written, or has failed: who said SAVE gets the answer."""
        service = self._node.service
        self.last_ok = not problem
        if not problem:
            service.saved_ms = self._node.clock.now_ms()
        told, self._told = self._told, []
        for session in told:
            if session.wait is not None and session.wait.command.name == "SAVE":  # and no later command
                service.release(session, error(f"ERR {problem}") if problem else OK)
        self._node.perform()

    async def _write(self) -> None:
        """Raises DiskError."""
        disk = await self._node.ports.open_disk()
        unfinished = f"{self._path}.tmp"
        try:
            await self._write_to(disk, unfinished)
        except DiskError:
            with suppress(DiskError):
                await disk.remove(unfinished)  # it may be what the disk is full of
            raise

    async def _write_to(self, disk: Disk, unfinished: str) -> None:
        """Raises DiskError."""
        file = await disk.open(unfinished, OpenMode.CREATE)
        try:
            await file.truncate(0)
            writer = self._writer()
            while (data := writer.step(self._node.clock.now_ms())) is not None:
                if data:
                    await file.append(data)
                await asyncio.sleep(0)  # whatever is done, others come between two steps
            size = await file.size()
            await file.sync()
        finally:
            await file.close()
        await disk.rename(unfinished, self._path)
        await disk.sync_directory(self._path.rpartition("/")[0])
        self.last_keys = writer.keys
        self._node.log.info("snapshot written", keys=writer.keys, bytes=size)

    def _writer(self) -> SnapshotWriter:
        service, now_ms = self._node.service, self._node.clock.now_ms()
        about = {
            b"redis-ver": service.redis_version.encode(),
            b"redis-bits": b"64",
            b"ctime": b"%d" % (now_ms // 1000),
            b"used-mem": b"%d" % service.keyspace.used_bytes,
            b"aof-base": b"0",
        }
        libraries = service.scripts.functions.libraries if service.scripts.has_functions else {}
        return SnapshotWriter(service.keyspace, about, [each.source for each in libraries.values()], now_ms)

    # --- end --------------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Write the last one."""
        if self._timer is not None:
            self._timer.cancel()
        if not self._loaded:
            return
        await self._end_of_this()
        if self._node.service.save_at_stop:
            self.start()
            await self._end_of_this()

    async def _end_of_this(self) -> None:
        if self._task is not None:
            await asyncio.wait([self._task])

    def information(self) -> dict[str, object]:
        return {
            "rdb_bgsave_in_progress": int(self.running),
            "rdb_last_bgsave_status": "ok" if self.last_ok else "err",
            "rdb_last_save_keys": self.last_keys,  # not Redis'
        }
