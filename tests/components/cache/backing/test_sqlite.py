"""A cache before an SQLite file: its own table, other people's tables, and files that cannot be used."""

import sqlite3
import threading

import pytest

from minidist.runtime.config import ConfigError


@pytest.fixture
def url(tmp_path):
    return f"sqlite:{tmp_path}/values.db?table=things"


def rows(url, query="SELECT key, value, expires_ms FROM things ORDER BY key"):
    with sqlite3.connect(url.removeprefix("sqlite:").partition("?")[0]) as connection:
        return connection.execute(query).fetchall()


async def test_a_table_is_made_and_used(start, url, until):
    place = await start(backing=url, strategy="write-through")
    client = await place.client()
    assert await client.ask("SET", b"k\xff", b"\0v") == b"OK"
    assert await client.ask("SET", "m", 1, "PXAT", 4_000_000_000_000) == b"OK"
    assert rows(url) == [(b"k\xff", b"\0v", None), (b"m", b"1", 4_000_000_000_000)]
    await client.ask("FLUSHALL")
    assert await client.ask("MGET", b"k\xff", "m", "n") == [b"\0v", b"1", None]
    assert await client.ask("PEXPIRETIME", "m") <= 4_000_000_000_000
    assert await client.ask("DEL", "m") == 1
    assert rows(url) == [(b"k\xff", b"\0v", None)]


async def test_what_has_expired_is_not_there(start, url):
    place = await start(backing=url, strategy="write-through", negative_ttl="0")
    client = await place.client()
    await client.ask("SET", "k", 1, "EX", 10)
    place.node.clock.advance(11_000)
    assert await client.ask("GET", "k") is None


async def test_somebody_elses_table_of_texts(start, tmp_path):
    path = f"{tmp_path}/shop.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE Names (Key TEXT, Value VARCHAR(20), Expires_ms, owner)")
        connection.execute("INSERT INTO names VALUES ('käse', 'gouda', NULL, 'ann'), ('n', 41, 0, 'bob')")
    place = await start(backing=f"sqlite:{path}?table=names", strategy="write-through")
    client = await place.client()
    assert await client.ask("GET", "käse") == b"gouda"
    assert await client.ask("INCR", "n") == 42
    assert "is no text" in str(await client.ask("GET", b"\xff"))
    assert rows(f"sqlite:{path}", "SELECT key, value FROM names ORDER BY key") == [("käse", "gouda"), ("n", "42")]


@pytest.mark.parametrize(
    ("make", "text"),
    [
        ("CREATE TABLE things (key, value)", "columns key, value and expires_ms"),
        ("CREATE VIEW things AS SELECT 1 AS key", "columns key, value and expires_ms"),
        (None, "a file that SQLite can open"),
    ],
)
async def test_a_file_that_cannot_be_used(start, tmp_path, url, make, text):
    if make is None:
        (tmp_path / "values.db").write_bytes(b"this is no database, and long enough to be looked at" * 100)
    else:
        with sqlite3.connect(f"{tmp_path}/values.db") as connection:
            connection.execute(make)
    with pytest.raises(ConfigError, match=text):
        await start(backing=url)
    assert not [thread for thread in threading.enumerate() if thread.name == "disk"]


async def test_a_locked_file_fails_without_effect_and_stops_nobody(start, url):
    place = await start(backing=url, strategy="write-through", backing_timeout="500ms")
    client, other = await place.client(), await place.client()
    with sqlite3.connect(url.removeprefix("sqlite:").partition("?")[0]) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        client.send("SET", "k", 1)
        assert await other.ask("PING") == b"PONG"
        error = str(await client.read())
        assert error == f"ERR backing {url}: database is locked"
        connection.rollback()
    assert await client.ask("SET", "k", 2) == b"OK"
    assert rows(url) == [(b"k", b"2", None)]


async def test_a_row_that_makes_no_sense_is_an_error(start, url):
    place = await start(backing=url)
    rows(url, "INSERT INTO things VALUES (x'6b', x'01', 'soon')")
    client = await place.client()
    assert str(await client.ask("GET", "k")).startswith(f"ERR backing {url}: has ")
    rows(url, "DELETE FROM things")
    assert await client.ask("GET", "k") is None


async def test_write_behind(start, url):
    place = await start(backing=url, strategy="write-behind", write_behind_lag="1h")
    client = await place.client()
    for n in range(300):
        client.send("SET", n % 100, n)
    assert [await client.read() for _ in range(300)] == [b"OK"] * 300
    await place.node.drain()
    assert {key: value for key, value, _ in rows(url)} == {b"%d" % n: b"%d" % (n + 200) for n in range(100)}
