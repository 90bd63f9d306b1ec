"""Reading nodes' logs as they grow. The nodes write their files themselves, so following them needs nobody's help."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from minidist.cluster.rundir import RunDir

POLL_S = 0.05
MAX_READ_BYTES = 1024 * 1024
MAX_LINE_BYTES = 64 * 1024  # what has no end by then is shown in pieces


@dataclass(slots=True)
class _Position:
    offset: int = 0
    rest: bytes = b""


@dataclass(slots=True)
class Tail:
    """The logs of some nodes (all when none are named), each from its beginning or from its end."""

    run_dir: RunDir
    nodes: Sequence[str] = ()
    _positions: dict[Path, _Position] = field(default_factory=dict)

    def skip_to_end(self) -> None:
        """Show only what comes from now on."""
        for path in self._files():
            self._positions[path] = _Position(path.stat().st_size)

    def read(self, *, last: bool = False) -> Iterator[tuple[str, str]]:
        """(node, line) for every line written since the last call; with `last` also lines without an end.

        What is written meanwhile is left for the next call, so this ends also when a node writes faster than we read.
        """
        for path in self._files():
            position = self._positions.setdefault(path, _Position())
            size = path.stat().st_size if path.exists() else 0
            while text := self._more(path, position):
                *lines, position.rest = text.split(b"\n")
                if len(position.rest) > MAX_LINE_BYTES:
                    lines.append(position.rest)
                    position.rest = b""
                yield from ((path.stem, line.decode("utf-8", "replace")) for line in lines)
                if position.offset >= size:
                    break
            if last and position.rest:
                yield path.stem, position.rest.decode("utf-8", "replace")
                position.rest = b""

    def _files(self) -> list[Path]:
        if self.nodes:
            return [path for node in self.nodes if (path := self.run_dir.log_of(node)).exists()]
        return sorted(self.run_dir.logs.glob("*.log"))

    @staticmethod
    def _more(path: Path, position: _Position) -> bytes:
        """What was left of the last line with what came after it; nothing when nothing came."""
        try:
            with open(path, "rb") as file:
                if file.seek(0, 2) < position.offset:
                    position.offset, position.rest = 0, b""  # it was cut, being too long
                file.seek(position.offset)
                data = file.read(MAX_READ_BYTES)
        except OSError:  # gone, or nothing that can be read
            return b""
        position.offset += len(data)
        return position.rest + data if data else b""
