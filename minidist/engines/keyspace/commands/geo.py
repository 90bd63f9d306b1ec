"""Geo commands: places kept as scores of a sorted set (geo.py), so that every sorted-set command works on them too.

GEOADD is a ZADD of such scores. GEOSEARCH reads its options into a `Search`, looks at the members in the few ranges of
scores that cover the area, and keeps those that are really inside; GEOSEARCHSTORE makes a sorted set of them.
"""

from dataclasses import dataclass, field

from minidist.engines.keyspace import events
from minidist.engines.keyspace.arguments import integer
from minidist.engines.keyspace.commands.sortedsets import zadd
from minidist.engines.keyspace.errors import SYNTAX, CommandError
from minidist.engines.keyspace.geo import (
    MOST_LATITUDE,
    MOST_LONGITUDE,
    Area,
    covering,
    decode,
    distance_m,
    encode,
    geohash,
)
from minidist.engines.keyspace.registry import FIRST_KEY, TWO_KEYS, CommandTable
from minidist.engines.keyspace.session import Session
from minidist.engines.keyspace.sortedset_arguments import score_argument
from minidist.engines.keyspace.sortedsets import SortedSet
from minidist.engines.keyspace.values import look, store
from minidist.wire.resp_plain import Command as Arguments
from minidist.wire.resp_replies import EMPTY_ARRAY, array, bulk, null_array
from minidist.wire.resp_replies import integer as integer_reply

TABLE = CommandTable()
command = TABLE.command

UNITS_M = {b"M": 1.0, b"KM": 1000.0, b"FT": 0.3048, b"MI": 1609.34}
SHOWN = frozenset({b"WITHDIST", b"WITHHASH", b"WITHCOORD"})


def unit_m(text: bytes) -> float:
    metres = UNITS_M.get(text.upper())
    if metres is None:
        raise CommandError("ERR unsupported unit provided. please use M, KM, FT, MI")
    return metres


def place(longitude_text: bytes, latitude_text: bytes) -> tuple[float, float]:
    """Longitude and latitude. Raises CommandError."""
    longitude, latitude = score_argument(longitude_text), score_argument(latitude_text)
    if abs(longitude) > MOST_LONGITUDE or abs(latitude) > MOST_LATITUDE:
        raise CommandError(f"ERR invalid longitude,latitude pair {longitude:f},{latitude:f}")
    return longitude, latitude


def place_reply(score: float, resp3: bool) -> bytes:
    texts = [f"{degrees:.17f}".rstrip("0").rstrip(".").encode() for degrees in decode(score)]
    return array([b",%b\r\n" % text if resp3 else bulk(text) for text in texts])


def distance_reply(metres: float, unit: float) -> bytes:
    return bulk(b"%.4f" % (metres / unit))


@command(
    "GEOADD", arity=-5, flags="write denyoom", keys=FIRST_KEY, since="3.2.0", group="geo",
    summary="Adds one or more members to a geospatial index. The key is created if it doesn't exist.",
    complexity="O(log(N)) for each item added, where N is the number of elements in the sorted set",
)  # fmt: skip
def geoadd(session: Session, args: Arguments, now_ms: int) -> bytes:
    at = 2
    while at < len(args) and args[at].upper() in (b"NX", b"XX", b"CH"):
        at += 1
    words = {word.upper() for word in args[2:at]}
    if (len(args) - at) % 3 or at == len(args) or {b"NX", b"XX"} <= words:
        raise CommandError(SYNTAX)
    pairs: list[bytes] = []
    for longitude, latitude, member in zip(args[at::3], args[at + 1 :: 3], args[at + 2 :: 3], strict=True):
        pairs += b"%d" % encode(*place(longitude, latitude)), member
    return zadd(session, (b"ZADD", *args[1:at], *pairs), now_ms)


@command(
    "GEOPOS", arity=-2, flags="readonly", keys=FIRST_KEY, since="3.2.0", group="geo",
    summary="Returns the longitude and latitude of members from a geospatial index.",
    complexity="O(N) where N is the number of members requested",
)  # fmt: skip
def geopos(session: Session, args: Arguments, now_ms: int) -> bytes:
    scores = _scores(session, args[1], args[2:], now_ms)
    resp3 = session.resp3
    return array([null_array(resp3) if score is None else place_reply(score, resp3) for score in scores])


@command(
    "GEOHASH", arity=-2, flags="readonly", keys=FIRST_KEY, since="3.2.0", group="geo",
    summary="Returns members from a geospatial index as geohash strings.",
    complexity="O(log(N)) for each member requested, where N is the number of elements in the sorted set",
)  # fmt: skip
def geohash_(session: Session, args: Arguments, now_ms: int) -> bytes:
    scores = _scores(session, args[1], args[2:], now_ms)
    return array([session.null if score is None else bulk(geohash(score).encode()) for score in scores])


@command(
    "GEODIST", arity=-4, flags="readonly", keys=FIRST_KEY, since="3.2.0", group="geo",
    summary="Returns the distance between two members of a geospatial index.", complexity="O(1)",
)  # fmt: skip
def geodist(session: Session, args: Arguments, now_ms: int) -> bytes:
    if len(args) > 5:
        raise CommandError(SYNTAX)
    unit = unit_m(args[4]) if len(args) == 5 else 1.0
    one, two = _scores(session, args[1], args[2:4], now_ms)
    if one is None or two is None:
        return session.null
    return distance_reply(distance_m(*decode(one), *decode(two)), unit)


def _scores(session: Session, key: bytes, members: Arguments, now_ms: int) -> list[float | None]:
    value = look(session, key, now_ms, SortedSet)
    return [None if value is None else value.score(member) for member in members]


# --- searching ------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Search:
    """What GEOSEARCH is told."""

    middle: tuple[float, float] | None = None
    has_middle: bool = False
    size_m: tuple[float, float] | None = None
    is_circle: bool = False
    unit: float = 1.0
    count: int = 0
    words: dict[bytes, None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Found:
    """A member within the area."""

    metres: float
    score: float
    member: bytes


def read_search(args: Arguments, at: int, value: SortedSet | None, name: str) -> Search:
    """The options of GEOSEARCH or GEOSEARCHSTORE, from argument `at` on. Raises CommandError."""
    search = Search()
    plain = {b"ANY", b"ASC", b"DESC", *SHOWN} | ({b"STOREDIST"} if name == "GEOSEARCHSTORE" else set())
    while at < len(args):
        word, rest = args[at].upper(), args[at + 1 :]
        if word in plain:
            search.words[word] = None
            at += 1
        elif word == b"COUNT" and rest:
            search.count = integer(rest[0])
            if search.count <= 0:
                raise CommandError("ERR COUNT must be > 0")
            at += 2
        elif word in (b"FROMMEMBER", b"FROMLONLAT") and not search.has_middle:
            at += _read_middle(search, word, rest, value)
        elif word in (b"BYRADIUS", b"BYBOX") and search.size_m is None:
            at += _read_size(search, word, rest)
        else:
            raise CommandError(SYNTAX)
    if name == "GEOSEARCHSTORE" and SHOWN & search.words.keys():
        raise CommandError(f"ERR {name} is not compatible with WITHDIST, WITHHASH and WITHCOORD options")
    if not search.has_middle:
        raise CommandError(f"ERR exactly one of FROMMEMBER or FROMLONLAT can be specified for {name}")
    if search.size_m is None:
        raise CommandError(f"ERR exactly one of BYRADIUS and BYBOX can be specified for {name}")
    if b"ANY" in search.words and not search.count:
        raise CommandError("ERR the ANY argument requires COUNT argument")
    return search


def _read_middle(search: Search, word: bytes, rest: Arguments, value: SortedSet | None) -> int:
    """How many arguments that took."""
    search.has_middle = True
    if word == b"FROMLONLAT" and len(rest) >= 2:
        search.middle = place(rest[0], rest[1])
        return 3
    if word != b"FROMMEMBER" or not rest:
        raise CommandError(SYNTAX)
    if value is not None:
        score = value.score(rest[0])
        if score is None:
            raise CommandError("ERR could not decode requested zset member")
        search.middle = decode(score)
    return 2


def _read_size(search: Search, word: bytes, rest: Arguments) -> int:
    """How many arguments that took."""
    if word == b"BYRADIUS" and len(rest) >= 2:
        read_radius(search, rest[0], rest[1])
        return 3
    if word != b"BYBOX" or len(rest) < 3:
        raise CommandError(SYNTAX)
    width = score_argument(rest[0], "ERR need numeric width")
    height = score_argument(rest[1], "ERR need numeric height")
    if width < 0 or height < 0:
        raise CommandError("ERR height or width cannot be negative")
    search.unit = unit_m(rest[2])
    search.size_m = (width * search.unit, height * search.unit)
    return 4


def read_radius(search: Search, number: bytes, unit: bytes) -> None:
    radius = score_argument(number, "ERR need numeric radius")
    if radius < 0:
        raise CommandError("ERR radius cannot be negative")
    search.unit = unit_m(unit)
    search.size_m = (2 * radius * search.unit, 2 * radius * search.unit)
    search.is_circle = True


def find_places(value: SortedSet, search: Search) -> list[Found]:
    """The members within the area; the nearest first if an order or only some are wanted."""
    assert search.middle is not None
    assert search.size_m is not None
    area = Area(*search.middle, *search.size_m, search.is_circle)
    most = search.count if b"ANY" in search.words else len(value)
    found: list[Found] = []
    for limits in covering(area):
        for score, member in value.pairs(*value.positions(limits)):
            metres = area.distance_m(*decode(score))
            if metres is not None and len(found) < most:
                found.append(Found(metres, score, member))
    if b"DESC" in search.words:
        found.sort(key=lambda each: each.metres, reverse=True)
    elif b"ASC" in search.words or search.count:
        found.sort(key=lambda each: each.metres)
    return found[: search.count] if search.count else found


@command(
    "GEOSEARCH", arity=-7, flags="readonly", keys=FIRST_KEY, since="6.2.0", group="geo",
    summary="Queries a geospatial index for members inside an area of a box or a circle.",
    complexity="O(N+log(M)) where N is the number of elements in the cells around the area, and M the number of items",
)  # fmt: skip
def geosearch(session: Session, args: Arguments, now_ms: int) -> bytes:
    value = look(session, args[1], now_ms, SortedSet)
    search = read_search(args, 2, value, "GEOSEARCH")
    if value is None:
        return EMPTY_ARRAY
    return search_reply(find_places(value, search), search, session.resp3)


def search_reply(found: list[Found], search: Search, resp3: bool) -> bytes:
    if not SHOWN & search.words.keys():
        return array([bulk(each.member) for each in found])
    return array([_shown(each, search, resp3) for each in found])


def _shown(found: Found, search: Search, resp3: bool) -> bytes:
    parts = [bulk(found.member)]
    if b"WITHDIST" in search.words:
        parts.append(distance_reply(found.metres, search.unit))
    if b"WITHHASH" in search.words:
        parts.append(integer_reply(int(found.score)))
    if b"WITHCOORD" in search.words:
        parts.append(place_reply(found.score, resp3))
    return array(parts)


@command(
    "GEOSEARCHSTORE", arity=-8, flags="write denyoom", keys=TWO_KEYS, since="6.2.0", group="geo",
    summary="Queries a geospatial index for members inside an area of a box or a circle, optionally stores the result.",
    complexity="O(N+log(M)) where N is the number of elements in the cells around the area, and M the number of items",
)  # fmt: skip
def geosearchstore(session: Session, args: Arguments, now_ms: int) -> bytes:
    value = look(session, args[2], now_ms, SortedSet)
    search = read_search(args, 3, value, "GEOSEARCHSTORE")
    found = [] if value is None else find_places(value, search)
    result = stored(found, search)
    store(session.database, args[1], result, events.SORTED_SET, b"geosearchstore", now_ms)
    return integer_reply(len(result))


def stored(found: list[Found], search: Search) -> SortedSet:
    """What the storing forms keep: the places, or with STOREDIST their distances."""
    by_distance = b"STOREDIST" in search.words
    return SortedSet.of((each.member, each.metres / search.unit if by_distance else each.score) for each in found)
