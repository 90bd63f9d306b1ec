"""An HTTP server as backing store: GET, PUT and DELETE of PREFIX/KEY, the key percent-encoded (RFC 3986).

    GET      200 and the value; 404 or 410: there is none. `Cache-Control: max-age` (or s-maxage), less `Age`, or else
             `Expires`, is its lifetime (RFC 9111 section 4.2). A date that has passed: there is none, as after a PUT
             with that date. What is stale otherwise, or not to be kept (`no-store`, `no-cache`), is good for who has
             asked, and for nobody later
    PUT      200, 201, 202 or 204. A lifetime is sent as `Expires`, for servers that keep it with the value
    DELETE   200, 202, 204, 404 or 410

Any other status is an error. After a 3xx, 4xx, 501 or 503 a write has had no effect; after another one nobody knows.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import quote

from minidist.components.cache.backing.exchanges import Exchanges
from minidist.components.cache.backing.store import BackingError
from minidist.engines.caching.requests import Found
from minidist.engines.keyspace.tables import NEVER
from minidist.wire.http1 import Limits, Response, ResponseParser, ResponseReader, request

if TYPE_CHECKING:
    from minidist.components.cache.backing.places import HttpPlace
    from minidist.runtime.clock import Clock
    from minidist.runtime.endpoint import Dialler

ABSENT = (404, 410)
STORED = (200, 201, 202, 204)
DELETED = (200, 202, 204, *ABSENT)
WITHOUT_EFFECT = (501, 503)
MAX_AGE = re.compile(r"(?:^|,)\s*(s-maxage|max-age)\s*=\s*\"?([0-9]{1,10}|)", re.IGNORECASE)
NOT_KEPT = re.compile(r"(?:^|,)\s*(?:no-store|no-cache)\s*(?:,|$)", re.IGNORECASE)
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
DATE = re.compile(r"[A-Z][a-z]{2}, ([0-9]{2}) ([A-Z][a-z]{2}) ([0-9]{4}) ([0-9]{2}):([0-9]{2}):([0-9]{2}) GMT")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LAST_DATE_S = 253_402_300_799
# What every server takes (RFC 9112 section 3 asks for 8,000 bytes).
LONGEST_TARGET = 8000


class OneResponse:
    """Reads the response to one request."""

    def __init__(self, parser: ResponseParser, method: str, longest_bytes: int) -> None:
        self._reader = ResponseReader(parser=parser, max_body_bytes=longest_bytes)
        self._reader.expect(method)

    @property
    def persistent(self) -> bool:
        return self._reader.persistent

    def feed(self, data: bytes) -> Response | None:
        return next(iter(self._reader.feed(data)), None)

    def eof(self) -> Response | None:
        response = self._reader.eof()
        if response is None:
            raise ValueError("connection closed before the answer")
        return response


class HttpStore:
    """Implements BackingStore."""

    def __init__(self, place: HttpPlace, dialler: Dialler, clock: Clock, longest_bytes: int, at_once: int) -> None:  # type: ignore[type-arg]
        self.at_once = at_once
        self._place = place
        self._clock = clock
        self._longest_bytes = longest_bytes
        self._parser = ResponseParser(Limits())
        self._exchanges = Exchanges(dialler, place.address)

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        self._exchanges.close()

    async def load(self, key: bytes, until_s: float) -> Found | None:
        response = await self._ask("GET", key, until_s)
        if response.status in ABSENT:
            return None
        if response.status != 200:
            raise BackingError(f"answered {response.status}")
        return Found(response.body, expires_ms(response, self._clock.now_ms()))

    async def store(self, key: bytes, value: bytes, ttl_ms: int | None, until_s: float) -> None:
        headers = [("Content-Type", "application/octet-stream")]
        if ttl_ms is not None:
            headers.append(("Expires", http_date(self._clock.now_ms() + ttl_ms)))
        self._check(await self._ask("PUT", key, until_s, headers, value), STORED)

    async def delete(self, key: bytes, until_s: float) -> None:
        self._check(await self._ask("DELETE", key, until_s), DELETED)

    @staticmethod
    def _check(response: Response, well: tuple[int, ...]) -> None:
        status = response.status
        if status not in well:
            without_effect = 300 <= status < 500 or status in WITHOUT_EFFECT
            raise BackingError(f"answered {status}", happened=not without_effect)

    async def _ask(
        self, method: str, key: bytes, until_s: float, headers: list[tuple[str, str]] | None = None, body: bytes = b""
    ) -> Response:
        target = f"{self._place.prefix}/{quote(key, safe='')}"
        if key in (b"", b".", b"..") or len(target) > LONGEST_TARGET:
            raise BackingError("key cannot be part of a URL")
        payload = request(method, target, str(self._place.address), headers or (), body)
        response: Response = await self._exchanges.exchange(
            payload,
            lambda: OneResponse(self._parser, method, self._longest_bytes),
            until_s=until_s,
            writes=method != "GET",
        )
        return response


def expires_ms(response: Response, now_ms: int) -> int:
    """When the value is no longer good, or NEVER. An age that is none means "stale" (RFC 9111 section 4.2.1)."""
    control = response.header("cache-control") or ""
    ages = {name.lower(): int(age) if age.isdigit() else 0 for name, age in MAX_AGE.findall(control)}
    if NOT_KEPT.search(control):
        return now_ms + 1
    if ages:
        age = response.header("age") or ""
        spent_s = int(age) if re.fullmatch("[0-9]{1,10}", age) else 0
        fresh_s = ages.get("s-maxage", ages.get("max-age", 0)) - spent_s
        return now_ms + (fresh_s * 1000 if fresh_s > 0 else 1)
    expires = response.header("expires")
    return NEVER if expires is None else read_http_date(expires, now_ms)


def http_date(at_ms: int) -> str:
    """The whole second that is not before it, as HTTP writes it (RFC 9110 section 5.6.7); years go to 9999."""
    at = EPOCH + timedelta(seconds=min(-(-at_ms // 1000), LAST_DATE_S))
    return f"{DAYS[at.weekday()]}, {at.day:02} {MONTHS[at.month - 1]} {at.year} {at:%H:%M:%S} GMT"


def read_http_date(text: str, now_ms: int) -> int:
    """The date in milliseconds; what is none means "stale already" (RFC 9111 section 5.3)."""
    match = DATE.fullmatch(text)
    try:
        if match is not None and match[2] in MONTHS:
            day, month, year = int(match[1]), MONTHS.index(match[2]) + 1, int(match[3])
            at = datetime(year, month, day, int(match[4]), int(match[5]), int(match[6]), tzinfo=UTC)
            return (at - EPOCH) // timedelta(milliseconds=1)
    except ValueError:
        pass
    return now_ms + 1
