"""One segment file of a record log: making it, walking its records, and judging where they stop.

recordformat.py has the layout and the rule that tells a torn tail from damage.
"""

from __future__ import annotations

import contextlib
from bisect import bisect_right

from minidist.runtime.disk import recordformat as form
from minidist.runtime.disk.port import Disk, DiskError, DiskFull, File, OpenMode

SUFFIX = ".seg"
# One read while walking: large enough for the device, small enough that parsing it does not stop the loop for long.
CHUNK_BYTES = 256 * 1024


class CorruptRecord(DiskError):
    """Data that was durable is damaged: `path` at `offset`. The node must not go on as if it had never been there."""

    def __init__(self, path: str, offset: int, reason: str) -> None:
        super().__init__("recover", path, f"at offset {offset}: {reason}")
        self.offset = offset


class UnknownFormat(DiskError):
    """The file was written by another version of this program."""


class Segment:
    """A segment file. `file` is open while the log writes to it, and None afterwards."""

    __slots__ = ("_marks", "end", "file", "first_sequence", "marker", "path", "room")

    def __init__(self, path: str, header: form.SegmentHeader, file: File | None, room: int) -> None:
        self.path = path
        self.marker = header.marker
        self.first_sequence = header.first_sequence
        self.file = file
        self.end = form.SEGMENT_HEADER_BYTES  # where the next record goes
        self.room = room  # length of the file, allocated room included
        self._marks = [(header.first_sequence, self.end)]  # a sparse index: where some of the records start

    def mark(self, sequence: int, offset: int) -> None:
        """Notes where a record starts, if the last note is far enough away."""
        if offset >= self._marks[-1][1] + CHUNK_BYTES:
            self._marks.append((sequence, offset))

    def walk_from(self, file: File, sequence: int) -> Walk:
        """A walk that begins at `sequence` or, by up to a chunk, before it; and ends at `end`."""
        index = bisect_right(self._marks, sequence, key=lambda mark: mark[0])
        start_sequence, offset = self._marks[max(0, index - 1)]
        return Walk(file, self.marker, start_sequence, offset, self.end)

    async def offset_of(self, sequence: int) -> int:
        """Where the record starts; `end` when there is none. The file is open."""
        assert self.file is not None
        walk = self.walk_from(self.file, sequence)
        while batch := await walk.batch():
            for found, offset, _ in batch:
                if found == sequence:
                    return offset
        return self.end

    async def cut(self, offset: int, room: int) -> None:
        """Durably removes everything from `offset` on, then allocates `room` again. The file is open for writing."""
        assert self.file is not None
        await self.file.truncate(offset)
        await self.file.sync()
        self.end = self.room = offset
        while self._marks[-1][1] > offset:
            self._marks.pop()
        with contextlib.suppress(DiskFull):  # then each write finds its room by itself, or not
            await self.file.allocate(room)
            self.room = max(room, offset)


class Walk:
    """Goes through records in order, a chunk at a time, until one is not good or the bytes end.

    `offset` and `sequence` are of the record that comes next; when `batch` has given an empty list, of the one that is
    not good, and `why` says what is wrong with it.
    """

    __slots__ = ("_end", "_file", "_marker", "offset", "sequence", "why")

    def __init__(self, file: File, marker: int, sequence: int, offset: int, end: int) -> None:
        self._file = file
        self._marker = marker
        self._end = end
        self.offset = offset
        self.sequence = sequence
        self.why = ""

    async def batch(self) -> list[tuple[int, int, bytes]]:
        """The next records as (sequence, offset, payload); seals are passed over. Empty at the end."""
        records: list[tuple[int, int, bytes]] = []
        count = CHUNK_BYTES
        while not records and not self.why:
            count = min(count, self._end - self.offset)
            data = await self._file.read_at(self.offset, count)
            count = self._parse(data, len(data) < count or self.offset + len(data) >= self._end, records)
        return records

    def _parse(self, data: bytes, is_last: bool, records: list[tuple[int, int, bytes]]) -> int:
        """Takes the whole records from `data`; gives how many bytes the next read should have."""
        position, size = 0, len(data)
        needed = CHUNK_BYTES
        while True:
            needed = form.RECORD_HEADER_BYTES
            if size - position >= needed:
                head = form.read_head(data, position, self._marker)
                if head is None or head.sequence != self.sequence:
                    self.why = "no record starts here" if head is None else "a record is out of sequence"
                    break
                needed += head.length
            if size - position < needed:
                if is_last:
                    self.why = "the file ends inside a record" if position < size else "the file ends"
                break
            assert head is not None
            payload = form.payload_of(head, data, position, self._marker)
            if payload is None:
                self.why = "the record's checksum does not match"
                break
            if not head.is_seal:
                records.append((self.sequence, self.offset + position, payload))
                self.sequence += 1
            position += needed
        self.offset += position
        return max(needed, CHUNK_BYTES)


class Rest:
    """What lies behind the place where a walk stopped."""

    __slots__ = ("durable", "is_zero", "records")

    def __init__(self) -> None:
        self.is_zero = True
        self.records = 0  # good ones
        self.durable = -1  # the highest sequence that one of them knew to be durable


async def look_behind(file: File, marker: int, offset: int, end: int) -> Rest:
    """Searches from `offset` to `end` for good records of this segment."""
    rest = Rest()
    while offset < end:
        data = await file.read_at(offset, min(CHUNK_BYTES, end - offset))
        if not data:
            break
        rest.is_zero = rest.is_zero and form.is_zero(data)
        for position in form.marker_positions(data, marker):
            head = form.read_head(data, position, marker)
            assert head is not None
            whole = form.RECORD_HEADER_BYTES + head.length
            if offset + position + whole > end:
                continue
            record, at = data, position
            if position + whole > len(data):
                record, at = await file.read_at(offset + position, whole), 0
            if len(record) - at >= whole and form.payload_of(head, record, at, marker) is not None:
                rest.records += 1
                rest.durable = max(rest.durable, head.durable)
        # The next chunk overlaps by what a header at the very end would lack.
        offset += max(len(data) - form.RECORD_HEADER_BYTES + 1, 1) if offset + len(data) < end else len(data)
    return rest


def segment_path(directory: str, first_sequence: int) -> str:
    return f"{directory}/{first_sequence:020d}{SUFFIX}"


async def create_segment(disk: Disk, directory: str, header: form.SegmentHeader, room: int) -> Segment:
    """A new segment file with `room` bytes, durable with its name when this returns.

    It gets its name last, so that a file with the name of a segment always has a whole header.
    """
    unfinished = f"{directory}/new.tmp"
    path = segment_path(directory, header.first_sequence)
    file = await disk.open(unfinished, OpenMode.CREATE)
    try:
        await file.truncate(0)
        await file.allocate(room)
        await file.write_at(0, form.encode_segment_header(header), sync=True)
        await disk.rename(unfinished, path)
        await disk.sync_directory(directory)
    except DiskError:
        await file.close()
        raise
    return Segment(path, header, file, room)


async def open_segment(disk: Disk, path: str) -> Segment:
    """Opens an existing segment for writing. Raises CorruptRecord, UnknownFormat."""
    file = await disk.open(path, OpenMode.WRITE)
    try:
        header = form.decode_segment_header(await file.read_at(0, form.SEGMENT_HEADER_BYTES))
        if segment_path(path.rpartition("/")[0], header.first_sequence) != path:
            raise ValueError(f"the header says it begins with record {header.first_sequence}")
        return Segment(path, header, file, await file.size())
    except form.WrongVersion as error:
        await file.close()
        reason = f"its format has version {error}, this program reads version {form.VERSION}"
        raise UnknownFormat("recover", path, reason) from None
    except ValueError as error:
        await file.close()
        raise CorruptRecord(path, 0, str(error)) from None
