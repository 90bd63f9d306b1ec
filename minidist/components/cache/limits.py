"""How far a client may be behind with reading what it is sent: Redis' `client-output-buffer-limit`.

`pubsub 32mb 8mb 60`: a subscriber is cut off when more than 32 MB wait for it, or more than 8 MB for 60 seconds; 0 is
no limit. It matters for what comes unasked only. Clients that ask are not read from while replies wait for them, and
nothing may wait beyond `client_buffer`, whatever is said here. MONITOR's clients are `normal` ones, as in Redis.
"""

from dataclasses import dataclass

from minidist.runtime.config import parse_size


@dataclass(frozen=True, slots=True)
class BufferLimit:
    """Bytes that may wait for a client; 0 for no limit."""

    hard_bytes: int
    soft_bytes: int
    soft_s: int

    def is_passed(self, buffered_bytes: int, behind_s: float) -> bool:
        """Whether so many bytes are too many, the soft limit having been passed for so long."""
        if self.hard_bytes and buffered_bytes > self.hard_bytes:
            return True
        return bool(self.soft_bytes and buffered_bytes > self.soft_bytes and behind_s >= self.soft_s)


Limits = dict[str, BufferLimit]

NO_LIMIT = BufferLimit(0, 0, 0)
DEFAULTS: Limits = {
    "normal": NO_LIMIT,
    "slave": BufferLimit(256 * 1024**2, 64 * 1024**2, 60),
    "pubsub": BufferLimit(32 * 1024**2, 8 * 1024**2, 60),
}


def parse_limits(text: str, before: Limits = DEFAULTS) -> Limits:
    """The limits with those of the text changed. Raises ValueError with Redis' words."""
    words = text.split()
    if len(words) % 4:
        raise ValueError("Wrong number of arguments in buffer limit configuration.")
    limits = dict(before)
    for at in range(0, len(words), 4):
        name = {"replica": "slave"}.get(words[at].lower(), words[at].lower())
        if name not in limits:
            raise ValueError("Invalid client class specified in buffer limit configuration.")
        try:
            hard_bytes, soft_bytes, soft_s = *map(parse_size, words[at + 1 : at + 3]), int(words[at + 3])
        except ValueError:
            soft_s = -1
        if soft_s < 0:
            raise ValueError("Error in hard, soft or soft_seconds setting in buffer limit configuration.")
        limits[name] = BufferLimit(hard_bytes, soft_bytes, soft_s)
    return limits


def show_limits(limits: Limits) -> str:
    """As CONFIG GET shows them."""
    return " ".join(f"{name} {each.hard_bytes} {each.soft_bytes} {each.soft_s}" for name, each in limits.items())
