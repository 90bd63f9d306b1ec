"""memcached's meta commands (mg, ms, md, ma, mn, me) over the keyspace, as memcached 1.6 has them.

A request is a command, a key, for `ms` the length of a block, and flags: a letter each, some with a token (`T30`). They
are read once (`parse`), for all commands alike; then a command walks through them in the order given, since some act
(`T` gives a lifetime) and others show what is so at that point (`t`).

What only these commands know of a value stands beside its flags (`Flagged`), so whoever stores another value, by any
protocol, ends it: `stale` (md with I: serve it, but let one client fetch anew), `won` (a client was told to do that, W;
others see Z), `fetched`. A value is asked whether it was fetched (`h`) from the first time on that somebody does ask.

Source: https://github.com/memcached/memcached/blob/master/doc/protocol.txt; order and error texts from 1.6.18.
"""

from __future__ import annotations

from base64 import b64encode
from binascii import Error as NotBase64
from binascii import a2b_base64
from dataclasses import dataclass
from typing import TYPE_CHECKING

from minidist.engines.keyspace import events
from minidist.engines.keyspace.memory import value_bytes
from minidist.engines.keyspace.tables import NEVER, Entry
from minidist.engines.keyspace.texts import Flagged, is_string, text
from minidist.wire.memcached import BAD_FORMAT, LONGEST_KEY_BYTES, number

if TYPE_CHECKING:
    from minidist.engines.keyspace.memcached import Memcached

LONGEST_OPAQUE = 32
MOST_WORDS = 19
KNOWN = frozenset(b"bcfhklqstuvxCDEFIJLMNOPRTS")
BAD_TOKEN = "bad token in command line format"
# Flags with a number of 64 bits, and what is answered to another. Those with a time are in `TIMES`.
NUMBERS = {
    "F": "",  # "bad command line format", unless something else is wrong; 32 bits are kept
    "C": BAD_TOKEN,
    "E": BAD_TOKEN,
    "J": "invalid numeric initial value",
    "D": "invalid numeric delta value",
}
TIMES = "NTR"
MODES = {"ms": {"": "set", "S": "set", "E": "add", "A": "append", "P": "prepend", "R": "replace"}}
MODES["ma"] = {"": "incr", "I": "incr", "+": "incr", "D": "decr", "-": "decr"}


class Refused(Exception):
    """A request that is answered with CLIENT_ERROR and these words."""


@dataclass(slots=True)
class Meta:
    """One request: the key as stored, its flags in order, and the numbers and times that came with them."""

    name: str
    key: bytes
    shown_key: bytes
    flags: list[str]
    tokens: dict[str, bytes]
    numbers: dict[str, int]
    times_ms: dict[str, int]
    now_ms: int

    def has(self, flag: str) -> bool:
        return flag in self.tokens

    def shown(self, flag: str) -> bytes:
        """What answers `O` and `k`; empty for others."""
        if flag == "O":
            return b" O" + self.tokens["O"]
        return b" k" + self.shown_key if flag == "k" else b""

    @property
    def echoes(self) -> bytes:
        return b"".join(map(self.shown, self.flags))


def parse(words: list[bytes], now_ms: int) -> Meta:
    """Raises Refused."""
    name, key = words[0].decode(), words[1]
    given = words[3:] if name == "ms" else words[2:]
    if len(key) > LONGEST_KEY_BYTES:
        raise Refused("bad command line format")
    if len(words) > MOST_WORDS:
        raise Refused("options flags are too long" if name == "mg" else "options flags too long")
    try:
        return _parsed(name, key, given, now_ms)
    except Refused:
        if name in ("md", "ma"):
            raise Refused("invalid or duplicate flag") from None
        raise


def _parsed(name: str, key: bytes, given: list[bytes], now_ms: int) -> Meta:
    from minidist.engines.keyspace.memcached import expiry_ms

    meta, wrong, right = Meta(name, key, key, [], {}, {}, {}, now_ms), "", True
    for word in given:
        flag, token = chr(word[0]), word[1:]
        if word[0] >= 127 or meta.has(flag):
            raise Refused("duplicate flag")
        if word[0] not in KNOWN:
            raise Refused("invalid flag")
        meta.flags.append(flag)
        meta.tokens[flag] = token
        if flag in NUMBERS:
            value = number(token)
            if value is None:
                wrong, right = NUMBERS[flag] or wrong, False
            else:
                meta.numbers[flag] = value
        elif flag in TIMES:
            at_ms = expiry_ms(token, now_ms)
            if at_ms is None or not -(1 << 31) <= int(token) < 1 << 31:
                wrong = BAD_TOKEN
            else:
                meta.times_ms[flag] = at_ms
        elif flag == "M" and len(token) != 1:
            wrong = "incorrect length for M token"
    if meta.has("b"):
        meta.key = decoded(key)
        meta.shown_key = b64encode(meta.key) + b" b"
        wrong = wrong if meta.key else "error decoding key"
    if wrong or not right:
        raise Refused(wrong or "bad command line format")
    return meta


def decoded(key: bytes) -> bytes:
    """The bytes that a key in base64 means; empty if it is none."""
    try:
        return a2b_base64(key, strict_mode=True)
    except NotBase64:
        return b""


def keys_of(words: list[bytes]) -> list[bytes]:
    """The key that a request names."""
    return [decoded(key) if b"b" in words[2:] else key for key in words[1:2]]


def run(memcached: Memcached, words: list[bytes], block: bytes, now_ms: int) -> bytes:
    """The reply to a meta command."""
    if words[0] == b"mn":
        return b"MN\r\n"
    if len(words) < 2:
        return BAD_FORMAT if words[0] == b"me" else b"ERROR\r\n"
    if words[0] == b"me":
        return _debug(memcached, words, now_ms)
    try:
        meta = parse(words, now_ms)
        mode = MODES.get(meta.name, {}).get(meta.tokens.get("M", b"").decode("latin-1"))
        if meta.name in MODES and mode is None:
            raise Refused(f"invalid mode for {meta.name} M token")
        if len(meta.tokens.get("O", b"")) >= LONGEST_OPAQUE:
            raise Refused("opaque token too long")
        if meta.name == "ms":
            return _set(memcached, meta, mode or "", block)
        if meta.name == "ma":
            return _count(memcached, meta, mode == "decr")
        return (_get if meta.name == "mg" else _delete)(memcached, meta)
    except Refused as problem:
        return f"CLIENT_ERROR {problem}\r\n".encode()


def marked(memcached: Memcached, entry: Entry) -> Flagged:
    """The value of a string as one that can be marked: the same value, so nobody hears of a change."""
    if not isinstance(entry.value, Flagged):
        value = Flagged(text(entry))
        memcached.database.keyspace.used_bytes += value_bytes(value) - value_bytes(entry.value)
        entry.value = value
    return entry.value


# --- mg -------------------------------------------------------------------------------------------------------------


def _get(memcached: Memcached, meta: Meta) -> bytes:
    database, now_ms = memcached.database, meta.now_ms
    memcached.counts["cmd_touch" if meta.has("T") else "cmd_get"] += 1
    idle_since_ms = now_ms if (before := database.peek(meta.key, now_ms)) is None else before.touched_ms
    entry = before if before is not None and meta.has("u") else database.read(meta.key, now_ms)
    created = False
    if entry is None and meta.has("N"):
        entry = memcached.put(meta.key, Flagged(b""), now_ms, NEVER)
        created = True
    if entry is None or not is_string(entry):
        return b"" if meta.has("q") else b"EN" + meta.echoes + b"\r\n"
    value = text(entry)
    won = created
    shown = []
    for flag in meta.flags:
        if flag == "T" or (flag == "N" and created):
            memcached.touch(meta.key, entry, meta.times_ms[flag])
        elif flag == "R":
            already = isinstance(value, Flagged) and value.won
            before_ms = meta.times_ms["R"]  # NEVER for R0, which asks for nothing
            won |= not already and not created and entry.expires_ms < before_ms < NEVER
        else:
            shown.append(_shown(memcached, meta, flag, entry, idle_since_ms))
    shown.append(_marks(memcached, entry, won))
    if entry.expires_ms <= now_ms:
        database.remove(meta.key)
    head = b"VA %d" % len(value) if meta.has("v") else b"HD"
    return head + b"".join(shown) + b"\r\n" + (value + b"\r\n" if meta.has("v") else b"")


def _shown(memcached: Memcached, meta: Meta, flag: str, entry: Entry, idle_since_ms: int) -> bytes:
    """What one flag of `mg` asks for, from its blank on; empty for flags that ask for nothing."""
    if flag == "s":
        return b" s%d" % len(entry.value)
    if flag == "t":
        return b" t" + _lifetime(entry, meta.now_ms)
    if flag == "c":
        return b" c%d" % memcached.unique(meta.key, meta.now_ms)
    if flag == "f":
        return b" f%d" % (entry.value.flags if isinstance(entry.value, Flagged) else 0)
    if flag == "l":
        return b" l%d" % (max(meta.now_ms - idle_since_ms, 0) // 1000)
    if flag == "h":
        value = marked(memcached, entry)
        before, value.fetched = value.fetched, value.fetched or not meta.has("u")
        return b" h%d" % before
    return meta.shown(flag)


def _lifetime(entry: Entry, now_ms: int) -> bytes:
    """Whole seconds that are left, begun ones included; -1 for ever."""
    return b"-1" if entry.expires_ms == NEVER else b"%d" % max(-((now_ms - entry.expires_ms) // 1000), 0)


def _marks(memcached: Memcached, entry: Entry, won: bool) -> bytes:
    """Whether the value is stale (X), whether somebody fetches it anew (Z), and whether this client is to (W)."""
    value = entry.value
    stale, already = (value.stale, value.won) if isinstance(value, Flagged) else (False, False)
    won |= stale and not already
    if won:
        marked(memcached, entry).won = True
    return b" Z" * already + b" X" * stale + b" W" * won


# --- ms -------------------------------------------------------------------------------------------------------------


def _set(memcached: Memcached, meta: Meta, mode: str, block: bytes) -> bytes:
    if not memcached.has_room(meta.now_ms):  # before the key is looked at, since it may have to go
        return b"SERVER_ERROR out of memory storing object\r\n"
    memcached.counts["cmd_set"] += 1
    database, key, now_ms = memcached.database, meta.key, meta.now_ms
    entry = database.peek(key, now_ms)
    joins = mode in ("append", "prepend")
    code, stale = _verdict(memcached, meta, mode, entry)
    if code != b"HD":
        return code + _echoes_of_set(memcached, meta, stored=False) + b"\r\n"
    if joins and entry is not None and not is_string(entry):
        return b"SERVER_ERROR the key holds another type than a string\r\n"
    flags, expires_ms = meta.numbers.get("F", 0) & 0xFFFFFFFF, meta.times_ms.get("T", NEVER)
    if joins and entry is None:
        expires_ms = meta.times_ms["N"]
    elif joins and entry is not None:
        before = text(entry)
        block = before + block if mode == "append" else block + before
        flags, expires_ms = before.flags if isinstance(before, Flagged) else 0, entry.expires_ms
    elif stale and entry is not None:
        expires_ms = entry.expires_ms
    value = Flagged.of(block, flags)
    if stale:
        won = entry is not None and isinstance(entry.value, Flagged) and entry.value.won
        value = Flagged.of(block, flags, stale=True, won=won)
    memcached.put(key, value, now_ms, expires_ms)
    if meta.has("E"):
        memcached.set_unique(key, meta.numbers["E"], now_ms)
    reply = b"HD" + _echoes_of_set(memcached, meta, stored=True, length=len(value)) + b"\r\n"
    if expires_ms <= now_ms:
        database.remove(key)
    return b"" if meta.has("q") else reply


def _verdict(memcached: Memcached, meta: Meta, mode: str, entry: Entry | None) -> tuple[bytes, bool]:
    """HD if the value may be stored, or why not; and whether it is stale at once."""
    compares = meta.numbers.get("C", 0) != 0  # the protocol's way to say none
    if entry is None:
        if meta.has("C") and mode in ("set", "replace"):
            return b"NF", False
        kept = mode == "replace" or (mode in ("append", "prepend") and not meta.has("N"))
        return (b"NS" if kept else b"HD"), False
    if mode == "add":
        return b"NS", False
    if not compares:
        return (b"EX" if meta.has("C") and mode in ("set", "replace") else b"HD"), False
    unique = memcached.unique(meta.key, meta.now_ms)
    if meta.numbers["C"] == unique:
        return b"HD", False
    if meta.has("I") and mode in ("set", "replace") and meta.numbers["C"] < unique:
        return b"HD", True
    return b"EX", False


def _echoes_of_set(memcached: Memcached, meta: Meta, *, stored: bool, length: int = 0) -> bytes:
    shown = []
    for flag in meta.flags:
        if flag == "c":
            shown.append(b" c%d" % (memcached.unique(meta.key, meta.now_ms) if stored else 0))
        elif flag == "s":
            shown.append(b" s%d" % length if stored else b"")
        else:
            shown.append(meta.shown(flag))
    return b"".join(shown)


# --- md -------------------------------------------------------------------------------------------------------------


def _delete(memcached: Memcached, meta: Meta) -> bytes:
    database, key, now_ms = memcached.database, meta.key, meta.now_ms
    entry = database.peek(key, now_ms)
    if entry is None:
        return b"NF" + meta.echoes + b"\r\n"
    if meta.has("C") and meta.numbers["C"] != memcached.unique(key, now_ms):
        return b"EX" + meta.echoes + b"\r\n"
    if (meta.has("I") or meta.has("x")) and is_string(entry):
        before = text(entry)
        flags = before.flags if isinstance(before, Flagged) and not meta.has("x") else 0
        value = Flagged.of(b"" if meta.has("x") else before, flags, stale=meta.has("I"))
        expires_ms = meta.times_ms.get("T", entry.expires_ms) if meta.has("I") else entry.expires_ms
        memcached.put(key, value, now_ms, expires_ms)
        if meta.has("E"):
            memcached.set_unique(key, meta.numbers["E"], now_ms)
        if expires_ms <= now_ms:
            database.remove(key)
    else:
        database.remove(key)
        database.notify(events.GENERIC, b"del", key)
    return b"" if meta.has("q") else b"HD" + meta.echoes + b"\r\n"


# --- ma -------------------------------------------------------------------------------------------------------------


def _count(memcached: Memcached, meta: Meta, decrement: bool) -> bytes:
    from minidist.engines.keyspace.memcached import NOT_A_NUMBER, counted

    database, key, now_ms = memcached.database, meta.key, meta.now_ms
    entry = database.find(key, now_ms)
    created = entry is None and meta.has("N")
    if created:
        shown_number = b"%d" % meta.numbers.get("J", 0)
        entry = memcached.put(key, shown_number, now_ms, NEVER)
    elif entry is None:
        return b"NF" + meta.echoes + b"\r\n"
    elif meta.numbers.get("C", 0) and meta.numbers["C"] != memcached.unique(key, now_ms):
        return b"EX" + meta.echoes + b"\r\n"
    else:
        done = counted(entry, meta.numbers.get("D", 1), decrement=decrement)
        if done is None:
            return NOT_A_NUMBER
        shown_number, value = done
        memcached.put(key, value, now_ms, entry.expires_ms)
    if meta.has("E"):
        memcached.set_unique(key, meta.numbers["E"], now_ms)
    shown = []
    for flag in meta.flags:
        if flag == "c":
            shown.append(b" c%d" % memcached.unique(key, now_ms))
        elif flag == "t":
            shown.append(b" t" + _lifetime(entry, now_ms))
        elif flag == "T" or (flag == "N" and created):
            memcached.touch(key, entry, meta.times_ms[flag])
        else:
            shown.append(meta.shown(flag))
    if entry.expires_ms <= now_ms:
        database.remove(key)
    if meta.has("q") and not created:
        return b""
    head = b"VA %d" % len(shown_number) if meta.has("v") else b"HD"
    return head + b"".join(shown) + b"\r\n" + (shown_number + b"\r\n" if meta.has("v") else b"")


# --- me -------------------------------------------------------------------------------------------------------------


def _debug(memcached: Memcached, words: list[bytes], now_ms: int) -> bytes:
    key = keys_of(words)[0]
    if not key or len(key) > LONGEST_KEY_BYTES:
        return BAD_FORMAT
    entry = memcached.database.peek(key, now_ms)
    if entry is None or not is_string(entry):
        return b"EN\r\n"
    value = entry.value
    figures = {
        "exp": _lifetime(entry, now_ms).decode(),
        "la": max(now_ms - entry.touched_ms, 0) // 1000,
        "cas": memcached.unique(key, now_ms),
        "fetch": "yes" if isinstance(value, Flagged) and value.fetched else "no",
        "cls": 1,
        "size": len(key) + value_bytes(value),
    }
    shown = " ".join(f"{name}={figure}" for name, figure in figures.items())
    return b"ME %b %b\r\n" % (words[1], shown.encode())
