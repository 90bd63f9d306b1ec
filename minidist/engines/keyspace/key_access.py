"""What commands do to their keys: read or change what a key holds. Users' rights (`%R~pattern`, `%W~pattern`) ask it.

Redis says of every key of a command whether it is read only, overwritten, … (RO, RW, OW, RM), and what happens to the
user's data under it: `access` tells something of it, `update`, `insert` and `delete` change it. A command like STRLEN
does neither: any right to the key will do. A few commands decide by their arguments.

Source: redis 7.2, src/commands/*.json ("key_specs") and db.c (`setGetKeys`, `bitfieldGetKeys`, `sortGetKeys`).
"""

from collections.abc import Callable
from functools import cache

from minidist.engines.keyspace.registry import Command
from minidist.wire.resp_plain import Command as Arguments

READ, WRITE = 1, 2
CHANGING = frozenset({"update", "insert", "delete"})

# Flags of the first key, and of all others if those differ: the commands they hold for.
ACCESS = {
    ("OW insert",): "SETNX MSETNX",
    ("OW update",): "MSET PSETEX RESTORE RESTORE-ASKING SETEX",
    ("RM delete",): "DEL UNLINK",
    ("RO",): """EXISTS HEXISTS HLEN HSTRLEN LLEN MEMORY|USAGE OBJECT|ENCODING OBJECT|FREQ OBJECT|IDLETIME
        OBJECT|REFCOUNT SCARD SISMEMBER STRLEN TOUCH TYPE WATCH XLEN ZCARD""",
    ("RW access",): "PFCOUNT PFDEBUG",
    ("RW access delete",): """BLMPOP BLPOP BRPOP BZMPOP BZPOPMAX BZPOPMIN GETDEL LMPOP LPOP RPOP SPOP ZMPOP ZPOPMAX
        ZPOPMIN""",
    ("RW access update",): """BITFIELD DECR DECRBY EVAL EVALSHA FCALL GETEX GETSET HINCRBY HINCRBYFLOAT INCR INCRBY
        INCRBYFLOAT MOVE SET SETBIT ZINCRBY""",
    ("RW delete",): """HDEL LREM LTRIM SREM XAUTOCLAIM XDEL XGROUP|DELCONSUMER XGROUP|DESTROY XTRIM ZREM
        ZREMRANGEBYLEX ZREMRANGEBYRANK ZREMRANGEBYSCORE""",
    ("RW insert",): """APPEND HSETNX LINSERT LPUSH LPUSHX PFADD RPUSH RPUSHX SADD XGROUP|CREATE
        XGROUP|CREATECONSUMER""",
    ("RW update",): """EXPIRE EXPIREAT GEOADD HEXPIRE HEXPIREAT HMSET HPERSIST HPEXPIRE HPEXPIREAT HSET LSET PERSIST
        PEXPIRE PEXPIREAT SETRANGE XACK XADD XCLAIM XGROUP|SETID XSETID ZADD""",
    ("RO access",): "XREADGROUP",
    ("OW update", "RO access"): """BITOP GEOSEARCHSTORE SDIFFSTORE SUNIONSTORE ZDIFFSTORE ZINTERSTORE ZRANGESTORE
        ZUNIONSTORE""",
    ("RW update", "RO access"): "SINTERSTORE",
    ("RO access", "OW update"): "COPY GEORADIUS GEORADIUSBYMEMBER SORT",
    ("RW access delete", "OW insert"): "RENAMENX",
    ("RW access delete", "OW update"): "RENAME",
    ("RW access delete", "RW insert"): "BLMOVE BRPOPLPUSH LMOVE RPOPLPUSH SMOVE",
    ("RW access insert", "RO access"): "PFMERGE",
    ("not_key",): "SPUBLISH SSUBSCRIBE SUNSUBSCRIBE",
}  # fmt: skip


@cache
def _by_name() -> dict[str, tuple[str, ...]]:
    return {name.replace("|", " "): flags for flags, names in ACCESS.items() for name in names.split()}


def key_flags(row: Command) -> tuple[str, ...]:
    """Redis' flags of the first key, and of the others where those differ. Commands that are not listed only read."""
    return _by_name().get(row.name, ("RW access update",) if row.write else ("RO access",))


def needed(flags: str) -> int:
    """The rights, READ or WRITE or both, that such an access takes; 0 where any right to the key will do."""
    words = set(flags.split())
    return READ * ("access" in words) + WRITE * bool(words & CHANGING)


Use = tuple[int, int]


def key_uses(row: Command, args: Arguments) -> list[Use]:
    """Where keys stand among the arguments, and which rights each use takes. Too few arguments have no keys."""
    if len(args) < row.least:
        return []
    if row.name in BY_ARGUMENTS:
        return BY_ARGUMENTS[row.name](args)
    flags = key_flags(row)
    if flags == ("not_key",):
        return []
    first, others = needed(flags[0]), needed(flags[-1])
    places = [at for span in row.keys.spans(args) for at in span]
    return [(at, others if number else first) for number, at in enumerate(places)]


def keys_of(row: Command, args: Arguments) -> list[bytes]:
    """The keys among the arguments, also where these say which they are (SORT with STORE)."""
    if row.name in BY_ARGUMENTS:
        return [args[at] for at, _ in BY_ARGUMENTS[row.name](args)]
    return row.keys.of(args)


def _set(args: Arguments) -> list[Use]:
    reads = any(word.upper() == b"GET" for word in args[3:])
    return [(1, READ | WRITE if reads else WRITE)]


def _bitfield(args: Arguments) -> list[Use]:
    """Only GET reads alone; what is malformed is taken for a change."""
    at = 2
    while at < len(args):
        width = {b"GET": 3, b"OVERFLOW": 2}.get(args[at].upper(), 0)
        if not width or at + width > len(args):
            return [(1, READ | WRITE)]
        at += width
    return [(1, READ)]


def _sort(args: Arguments) -> list[Use]:
    """The last STORE counts."""
    stored_at = 0
    at = 2
    while at < len(args):
        word = args[at].upper()
        if word == b"STORE" and at + 1 < len(args):
            stored_at = at + 1
        at += 1 + {b"LIMIT": 2, b"GET": 1, b"BY": 1}.get(word, 0)
    return [(1, READ), (stored_at, WRITE)] if stored_at else [(1, READ)]


def _georadius(first_option: int) -> Callable[[Arguments], list[Use]]:
    """The last STORE or STOREDIST counts."""

    def uses(args: Arguments) -> list[Use]:
        stored_at = 0
        at = first_option
        while at < len(args) - 1:
            if args[at].upper() in (b"STORE", b"STOREDIST"):
                at += 1
                stored_at = at
            at += 1
        return [(1, READ), (stored_at, WRITE)] if stored_at else [(1, READ)]

    return uses


BY_ARGUMENTS: dict[str, Callable[[Arguments], list[Use]]] = {
    "SET": _set,
    "BITFIELD": _bitfield,
    "SORT": _sort,
    "GEORADIUS": _georadius(5),
    "GEORADIUSBYMEMBER": _georadius(5),
}
