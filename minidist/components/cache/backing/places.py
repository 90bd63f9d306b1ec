"""The value of `--backing`: where the store is.

    http://HOST:PORT/PREFIX                      GET, PUT and DELETE of PREFIX/KEY
    redis://[USER:PASSWORD@]HOST:PORT/DATABASE   GET, SET and DEL
    sqlite:FILE?table=TABLE                      a row for each key

`shown` is how errors and figures name it: without the password.
"""

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

from minidist.runtime.config import Address

FORMS = "http://HOST:PORT/PREFIX, redis://[USER:PASSWORD@]HOST:PORT/DATABASE or sqlite:FILE?table=TABLE"
DEFAULT_PORTS = {"http": 80, "redis": 6379}


@dataclass(frozen=True, slots=True)
class HttpPlace:
    address: Address
    prefix: str  # of the path, without a slash at its end
    shown: str


@dataclass(frozen=True, slots=True)
class RedisPlace:
    address: Address
    database: int
    username: str
    password: str
    shown: str


@dataclass(frozen=True, slots=True)
class SqlitePlace:
    path: str
    table: str
    shown: str


Place = HttpPlace | RedisPlace | SqlitePlace


def parse_place(text: str) -> Place:
    """Raises ValueError."""
    if text.startswith("sqlite:"):
        return _sqlite(text)
    if not text.isascii() or re.search(r"[\x00-\x20\x7f]", text):
        raise ValueError(text)
    parts = urlsplit(text)
    if parts.scheme not in DEFAULT_PORTS or not parts.hostname or parts.query or parts.fragment:
        raise ValueError(text)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    address = Address.parse(f"{host}:{parts.port or DEFAULT_PORTS[parts.scheme]}")
    if parts.scheme == "http":
        if "@" in parts.netloc:
            raise ValueError(text)
        prefix = parts.path.rstrip("/")
        return HttpPlace(address, prefix, f"http://{address}{prefix}")
    database = parts.path.strip("/") or "0"
    if not re.fullmatch("[0-9]{1,5}", database):
        raise ValueError(text)
    return RedisPlace(
        address,
        int(database),
        unquote(parts.username or ""),
        unquote(parts.password or ""),
        f"redis://{address}/{int(database)}",
    )


def _sqlite(text: str) -> SqlitePlace:
    path, _, query = text.removeprefix("sqlite:").partition("?")
    options = dict(parse_qsl(query, strict_parsing=True)) if query else {}
    table = options.pop("table", "")
    if not path or "\0" in path or options or not re.fullmatch("[A-Za-z_][A-Za-z0-9_]{0,127}", table):
        raise ValueError(text)
    return SqlitePlace(path, table, f"sqlite:{path}?table={table}")
