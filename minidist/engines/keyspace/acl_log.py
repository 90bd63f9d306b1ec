"""ACL LOG: what users were refused, like events within a minute counted as one.

Source: redis 7.2, src/acl.c `addACLLogEntry`
"""

from collections import deque
from dataclasses import dataclass

GROUPED_MS = 60_000
LONGEST_BYTES = 1024  # of a key, channel or name: Redis keeps all of it, be it half a gigabyte
LOOKED_AT = 10  # entries that a new event is compared with


@dataclass(slots=True)
class Refusal:
    """One entry. `kind` is command, key, channel or auth; `object` names it; times are service time."""

    number: int
    kind: str
    context: str
    object: bytes
    user: bytes
    created_ms: int
    updated_ms: int
    client: str
    count: int = 1


class AccessLog:
    """At most `most` entries, the latest first. Numbers are never used again."""

    def __init__(self, most: int = 128) -> None:
        self.most = most
        self.entries: deque[Refusal] = deque()
        self._next = 0

    def add(self, kind: str, context: str, what: bytes, user: bytes, client: str, now_ms: int) -> None:
        what, user = what[:LONGEST_BYTES], user[:LONGEST_BYTES]
        for at, entry in zip(range(LOOKED_AT), self.entries, strict=False):
            same = (entry.kind, entry.context, entry.object, entry.user) == (kind, context, what, user)
            if same and abs(now_ms - entry.updated_ms) <= GROUPED_MS:
                entry.count += 1
                entry.updated_ms = now_ms
                entry.client = client
                del self.entries[at]
                self.entries.appendleft(entry)
                return
        self.entries.appendleft(Refusal(self._next, kind, context, what, user, now_ms, now_ms, client))
        self._next += 1
        while len(self.entries) > self.most:
            self.entries.pop()
