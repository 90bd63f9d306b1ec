"""What a record log does when it is opened: walk every segment, judge where each stops, cut a torn tail.

recordformat.py has the rule that tells a torn tail from damage.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from minidist.runtime.disk.port import Disk
from minidist.runtime.disk.segment import SUFFIX, CorruptRecord, Segment, Walk, look_behind, open_segment

OnRecord = Callable[[int, bytes], None]


@dataclass(slots=True)
class Recovery:
    """What was found. `cut_bytes` of a torn tail were removed from `cut_path`, from `cut_offset` on.

    `cut_records` counts the good records among them: behind the first hole, of the same unsynced writes.
    """

    records: int = 0
    cut_bytes: int = 0
    cut_records: int = 0
    cut_path: str = ""
    cut_offset: int = 0


async def recover(
    disk: Disk, directory: str, on_record: OnRecord | None, room: int
) -> tuple[list[Segment], int, Recovery]:
    """Gives the segments (the last one open, with `room` bytes if it had to be cut), the next sequence, the report.

    All that is kept is durable afterwards. Raises CorruptRecord, UnknownFormat.
    """
    report = Recovery()
    segments: list[Segment] = []
    next_sequence = 0
    paths = []
    for name in await disk.list(directory):
        if name.endswith(SUFFIX):
            paths.append(f"{directory}/{name}")
        else:  # a segment that was being made at the crash
            await disk.remove(f"{directory}/{name}")
    for path in paths:
        is_last = path == paths[-1]
        segment = await open_segment(disk, path)
        assert segment.file is not None
        try:
            if segments and segment.first_sequence != next_sequence:
                before = segments[-1]
                raise CorruptRecord(before.path, before.end, f"record {next_sequence} is missing; {path} is the next")
            walk = await _walk(segment, on_record, report)
            next_sequence = walk.sequence
            await _judge(segment, walk, is_last, room, report)
            if is_last:
                await segment.file.sync()
        except BaseException:
            await segment.file.close()
            raise
        if not is_last:
            await segment.file.close()
            segment.file = None
        segments.append(segment)
    return segments, next_sequence, report


async def _walk(segment: Segment, on_record: OnRecord | None, report: Recovery) -> Walk:
    """Hands over the records of one segment; gives the walk, where it stopped."""
    assert segment.file is not None
    walk = Walk(segment.file, segment.marker, segment.first_sequence, segment.end, segment.room)
    while batch := await walk.batch():
        segment.mark(batch[0][0], batch[0][1])
        report.records += len(batch)
        if on_record is not None:
            for sequence, _, payload in batch:
                on_record(sequence, payload)
    segment.end = walk.offset
    return walk


async def _judge(segment: Segment, walk: Walk, is_last: bool, room: int, report: Recovery) -> None:
    """Nothing but zeros behind the last good record: the end. Else the tail of the log is cut, or this is damage."""
    assert segment.file is not None
    rest = await look_behind(segment.file, segment.marker, segment.end, segment.room)
    if rest.is_zero:
        return
    if not is_last or rest.durable >= walk.sequence:
        raise CorruptRecord(segment.path, segment.end, f"{walk.why}, but record {walk.sequence} was durable")
    report.cut_bytes = segment.room - segment.end
    report.cut_records = rest.records
    report.cut_path = segment.path
    report.cut_offset = segment.end
    await segment.cut(segment.end, room)
