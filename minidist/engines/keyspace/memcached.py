"""memcached's commands over the keyspace: the same keys that RESP clients see in database 0.

A value that was stored with flags is a `Flagged` string; RESP sees its bytes. What memcached calls the unique id of a
value (gets, cas) is made when it is asked for, and holds as long as nobody has changed the key, told by a watch; only
the newest MOST_IDS are remembered, and a forgotten one makes `cas` answer EXISTS, never overwrite.

Times: 0 lives for ever, up to 30 days is from now, more is Unix time, a negative one has passed. Service time.
"""

from binascii import crc_hqx
from collections.abc import Callable
from typing import Protocol

from minidist.engines.keyspace import events
from minidist.engines.keyspace.database import Database, Watch
from minidist.engines.keyspace.errors import CommandError, Postponed
from minidist.engines.keyspace.service import Service
from minidist.engines.keyspace.tables import NEVER, Entry
from minidist.engines.keyspace.texts import Flagged, is_string, text
from minidist.structures.slots import OPENING_BRACE, SLOT_MASK, tagged_slot
from minidist.wire.memcached import BAD_FORMAT, LARGEST, META, READING, STORING, Request, number

THIRTY_DAYS_S = 30 * 24 * 3600
MOST_IDS = 10_000
OUT_OF_MEMORY = b"SERVER_ERROR out of memory storing object\r\n"
NOT_A_NUMBER = b"CLIENT_ERROR cannot increment or decrement non-numeric value\r\n"
BAD_DELTA = b"CLIENT_ERROR invalid numeric delta argument\r\n"
BAD_TIME = b"CLIENT_ERROR invalid exptime argument\r\n"
WRONG_TYPE = b"SERVER_ERROR the key holds another type than a string\r\n"
LAST_MS = 1 << 61


class Timer(Protocol):
    """Something that will happen, unless it is cancelled."""

    def cancel(self) -> None: ...


class Memcached:
    """The commands. `call_at(at_ms, callback)` is a timer on service time; `version` is what clients are told."""

    def __init__(self, service: Service, version: str, call_at: Callable[[int, Callable[[], object]], Timer]) -> None:
        self.service = service
        self.version = version
        self._call_at = call_at
        self._flush_timer: Timer | None = None  # of `flush_all` with a delay: the last one counts
        self._ids: dict[bytes, tuple[int, Watch]] = {}
        self._last_id = 0
        self.connections = self.connections_made = 0
        self.counts = dict.fromkeys(("cmd_get", "cmd_set", "cmd_touch", "cmd_flush"), 0)

    @property
    def database(self) -> Database:
        return self.service.keyspace.databases[0]

    def run(self, request: Request, now_ms: int) -> bytes | None:
        """The reply, empty for `noreply`; None when the client wants to go (`quit`).

        Raises Postponed: nothing has happened, run it again after `Signal.RESUME`, and what follows on the
        connection later.
        """
        words = request.words
        name = words[0]
        if name == b"quit":
            return None
        evictor = self.service.keyspace.evictor
        if evictor.counts_uses:
            evictor.count_uses(self.database, keys_of(words), now_ms)
        if name in READING:
            return self._read(request, now_ms)
        if name in META:
            from minidist.engines.keyspace import memcached_meta  # few clients speak it

            return memcached_meta.run(self, words, request.block, now_ms)
        noreply = len(words) > 1 and words[-1] == b"noreply"
        if noreply:
            words = words[:-1]
        if name in STORING:
            reply = self._store(words, request.block, now_ms)
        else:
            command = COMMANDS.get(name)
            reply = b"ERROR\r\n" if command is None else command(self, words, now_ms)
        return b"" if noreply else reply

    # --- reading ----------------------------------------------------------------------------------------------------

    def get(self, key: bytes, now_ms: int) -> bytes:
        """What `run` answers to `get` of one key: it is most of what a cache is asked."""
        database = self.database
        slot = (tagged_slot(key) if OPENING_BRACE in key else crc_hqx(key, 0)) & SLOT_MASK
        entry = database.tables[slot].get(key)
        keyspace = database.keyspace
        if (
            entry is None
            or entry.expires_ms <= now_ms
            or (value := entry.value).__class__ is not bytes
            or keyspace.evictor.counts_uses
        ):
            return self.run(Request([b"get", key]), now_ms) or b""
        entry.touched_ms = now_ms
        keyspace.hits += 1
        self.counts["cmd_get"] += 1
        return b"VALUE %b 0 %d\r\n%b\r\nEND\r\n" % (key, len(value), value)

    def _read(self, request: Request, now_ms: int) -> bytes:
        words = request.words
        expires_ms = None
        keys = keys_of(words)
        if words[0] in (b"gat", b"gats"):
            expires_ms = expiry_ms(words[1], now_ms)
            if expires_ms is None:
                return BAD_TIME
            self.counts["cmd_touch"] += len(keys)
        self.counts["cmd_get"] += len(keys)
        parts = [self._value(key, words[0].endswith(b"s"), expires_ms, now_ms) for key in keys]
        if request.last:
            parts.append(b"END\r\n")
        return b"".join(parts)

    def _value(self, key: bytes, with_id: bool, expires_ms: int | None, now_ms: int) -> bytes:
        database = self.database
        entry = database.read(key, now_ms)
        if entry is None or not is_string(entry):
            return b""
        value = text(entry)
        if expires_ms is not None:
            self._touch_or_remove(key, entry, expires_ms, now_ms)
        flags = value.flags if isinstance(value, Flagged) else 0
        unique = b" %d" % self.unique(key, now_ms) if with_id else b""
        return b"VALUE %b %d %d%b\r\n%b\r\n" % (key, flags, len(value), unique, value)

    def _touch_or_remove(self, key: bytes, entry: Entry, expires_ms: int, now_ms: int) -> None:
        if expires_ms <= now_ms:
            self.database.remove(key)
        else:
            self.touch(key, entry, expires_ms)

    def touch(self, key: bytes, entry: Entry, expires_ms: int) -> None:
        """Give a key another lifetime. That is a change for everybody but for who has a unique id of the value."""
        known = self._ids.get(key)
        holds = known is not None and not known[1].changed
        self.database.set_expiry(key, entry, expires_ms)
        self.database.changed(key)
        if known is not None and holds:
            known[1].changed = False

    # --- unique ids -------------------------------------------------------------------------------------------------

    def unique(self, key: bytes, now_ms: int) -> int:
        """The id of a key's present value."""
        known = self._ids.get(key)
        if known is not None and not known[1].changed:
            return known[0]
        self._last_id += 1
        self.set_unique(key, self._last_id, now_ms)
        return self._last_id

    def set_unique(self, key: bytes, number: int, now_ms: int) -> None:
        """Let this be the id of a key's present value."""
        self._forget_id(key)
        if len(self._ids) >= MOST_IDS:
            self._forget_id(next(iter(self._ids)))
        self._ids[key] = (number, self.database.watch(key, now_ms))

    def _forget_id(self, key: bytes) -> None:
        known = self._ids.pop(key, None)
        if known is not None:
            self.database.unwatch(key, known[1])

    # --- storing ----------------------------------------------------------------------------------------------------

    def _store(self, words: list[bytes], block: bytes, now_ms: int) -> bytes:
        name, key = words[0], words[1]
        expires_ms = expiry_ms(words[3], now_ms)
        if expires_ms is not None and not self.has_room(now_ms):  # before the key is looked at, since it may have to go
            return OUT_OF_MEMORY
        self.counts["cmd_set"] += 1
        if expires_ms is None:
            return BAD_FORMAT
        entry = self.database.peek(key, now_ms)
        refusal = self._refusal(words, entry, now_ms)
        if refusal:
            return refusal
        flags = int(words[2]) & 0xFFFFFFFF
        if name in (b"append", b"prepend"):
            assert entry is not None
            before = text(entry)
            block = before + block if name == b"append" else block + before
            flags = before.flags if isinstance(before, Flagged) else 0
            expires_ms = entry.expires_ms
        if expires_ms <= now_ms:
            self.database.remove(key)
            return b"STORED\r\n"
        self.put(key, Flagged.of(block, flags), now_ms, expires_ms)
        return b"STORED\r\n"

    def _refusal(self, words: list[bytes], entry: Entry | None, now_ms: int) -> bytes:
        """Why a value is not stored; empty if it is."""
        name, key = words[0], words[1]
        if name == b"cas":
            if entry is None:
                return b"NOT_FOUND\r\n"
            known = self._ids.get(key)
            same = known is not None and not known[1].changed and known[0] == int(words[5])
            return b"" if same else b"EXISTS\r\n"
        if (name == b"add") == (entry is not None) and name != b"set":
            return b"NOT_STORED\r\n"
        if name in (b"append", b"prepend") and entry is not None and not is_string(entry):
            return WRONG_TYPE
        return b""

    def has_room(self, now_ms: int) -> bool:
        """Whether something may be stored. Raises Postponed while enough for it is being evicted."""
        if not self.service.keyspace.make_room(now_ms):
            return False
        if self.service.keyspace.overfull:
            self.service.short_of_room = True
            raise Postponed
        return True

    def put(self, key: bytes, value: bytes, now_ms: int, expires_ms: int) -> Entry:
        entry = self.database.put(key, value, now_ms, expires_ms)
        self.database.notify(events.STRING, b"set", key)
        return entry

    # --- the others -------------------------------------------------------------------------------------------------

    def _delete(self, words: list[bytes], now_ms: int) -> bytes:
        if len(words) not in (2, 3) or (len(words) == 3 and words[2] != b"0"):
            return b"CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]\r\n"
        if not self.database.delete(words[1], now_ms):
            return b"NOT_FOUND\r\n"
        self.database.notify(events.GENERIC, b"del", words[1])
        return b"DELETED\r\n"

    def _touch(self, words: list[bytes], now_ms: int) -> bytes:
        self.counts["cmd_touch"] += 1
        expires_ms = expiry_ms(words[2], now_ms) if len(words) == 3 else None
        if expires_ms is None:
            return BAD_TIME if len(words) == 3 else b"ERROR\r\n"
        entry = self.database.find(words[1], now_ms)
        if entry is None:
            return b"NOT_FOUND\r\n"
        self._touch_or_remove(words[1], entry, expires_ms, now_ms)
        return b"TOUCHED\r\n"

    def _count(self, words: list[bytes], now_ms: int) -> bytes:
        """incr wraps at 2^64, decr stops at 0; a shorter number is padded with blanks, as memcached does it."""
        if len(words) != 3:
            return b"ERROR\r\n"
        delta = number(words[2])
        if delta is None:
            return BAD_DELTA
        entry = self.database.find(words[1], now_ms)
        if entry is None:
            return b"NOT_FOUND\r\n"
        done = counted(entry, delta, decrement=words[0] == b"decr")
        if done is None:
            return NOT_A_NUMBER
        shown, value = done
        self.put(words[1], value, now_ms, entry.expires_ms)
        return shown + b"\r\n"

    def _flush(self, words: list[bytes], now_ms: int) -> bytes:
        delay_s = words[1] if len(words) == 2 else b"0"
        if len(words) > 2 or not delay_s.isdigit() or len(delay_s) > 12:
            return BAD_TIME
        self.counts["cmd_flush"] += 1
        at_ms = expiry_ms(delay_s, now_ms)
        if delay_s.strip(b"0") and at_ms is not None and at_ms > now_ms:
            self._cancel_flush()
            self._flush_timer = self._call_at(at_ms, self.database.flush)
        else:
            self.database.flush()
        return b"OK\r\n"

    def _cancel_flush(self) -> None:
        if self._flush_timer is not None:
            self._flush_timer.cancel()

    def forget_everything(self) -> None:
        """As new."""
        self._cancel_flush()
        self.counts = dict.fromkeys(self.counts, 0)

    def _version(self, words: list[bytes], now_ms: int) -> bytes:
        return f"VERSION {self.version}\r\n".encode()

    def _verbosity(self, words: list[bytes], now_ms: int) -> bytes:
        return b"OK\r\n" if len(words) == 2 and words[1].isdigit() else b"ERROR\r\n"

    def _limit(self, words: list[bytes], now_ms: int) -> bytes:
        """cache_memlimit, in megabytes."""
        megabytes = number(words[1]) if len(words) == 2 and len(words[1]) <= 9 else None
        if not megabytes:
            return BAD_FORMAT
        try:
            self.service.settings.change({"maxmemory": str(megabytes * 1024**2)})
        except CommandError as problem:
            return f"SERVER_ERROR {problem}\r\n".encode()
        return b"OK\r\n"

    def _shutdown(self, words: list[bytes], now_ms: int) -> bytes:
        return b"ERROR: shutdown not enabled\r\n"

    def _stats(self, words: list[bytes], now_ms: int) -> bytes:
        if len(words) > 1:
            if words[1] == b"reset":
                self.service.reset_statistics()
                return b"RESET\r\n"
            return b"END\r\n"
        service, keyspace = self.service, self.service.keyspace
        figures = {
            "uptime": max(now_ms - service.started_ms, 0) // 1000,
            "time": now_ms // 1000,
            "version": self.version,
            "curr_connections": len(service.sessions) + self.connections,
            "total_connections": service.connections_made + self.connections_made,
            **self.counts,
            "get_hits": keyspace.hits,
            "get_misses": keyspace.misses,
            "curr_items": keyspace.count,
            "bytes": keyspace.used_bytes,
            "evictions": keyspace.evicted_keys,
            "expired_unfetched": keyspace.expired_keys,
            "limit_maxbytes": keyspace.limit_bytes,
            "threads": 1,
        }
        return "".join(f"STAT {name} {value}\r\n" for name, value in figures.items()).encode() + b"END\r\n"


COMMANDS: dict[bytes, Callable[[Memcached, list[bytes], int], bytes]] = {
    b"delete": Memcached._delete,
    b"touch": Memcached._touch,
    b"incr": Memcached._count,
    b"decr": Memcached._count,
    b"flush_all": Memcached._flush,
    b"version": Memcached._version,
    b"verbosity": Memcached._verbosity,
    b"cache_memlimit": Memcached._limit,
    b"shutdown": Memcached._shutdown,
    b"stats": Memcached._stats,
}


def counted(entry: Entry, delta: int, *, decrement: bool) -> tuple[bytes, bytes] | None:
    """A number after a change, and the value to be stored for it; None where there is no number."""
    before = text(entry) if is_string(entry) else b""
    value = number(before.rstrip(b" "))
    if value is None:
        return None
    after = b"%d" % (max(value - delta, 0) if decrement else (value + delta) & LARGEST)
    flags = before.flags if isinstance(before, Flagged) else 0
    return after, Flagged.of(after.ljust(len(before)), flags)


def keys_of(words: list[bytes]) -> list[bytes]:
    """The keys that a request names."""
    if words[0] in META:
        from minidist.engines.keyspace import memcached_meta

        return memcached_meta.keys_of(words)
    if words[0] in (b"gat", b"gats"):
        return words[2:]
    return words[1:] if words[0] in READING else words[1:2]


def expiry_ms(word: bytes, now_ms: int) -> int | None:
    """When a value stored with this time expires; None for what is no number."""
    digits = word[1:] if word[:1] == b"-" else word
    if not digits.isdigit() or len(digits) > 15:
        return None
    seconds = int(word)
    if seconds == 0:
        return NEVER
    if seconds < 0:
        return 0
    return min(seconds * 1000 + (now_ms if seconds <= THIRTY_DAYS_S else 0), LAST_MS)
