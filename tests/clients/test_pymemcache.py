"""An unmodified pymemcache against the cache's memcached listener, and RESP beside it over the same keys."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
import redis
from pymemcache import MemcacheIllegalInputError
from pymemcache.client.base import Client
from pymemcache.exceptions import MemcacheClientError, MemcacheServerError
from pymemcache.serde import pickle_serde


@pytest.fixture(scope="module")
def ready() -> Iterator[dict[str, Any]]:
    command = [
        *(sys.executable, "-m", "minidist", "cache", "--listen", "127.0.0.1:0"),
        *("--memcached", "127.0.0.1:0", "--max-bulk", "1mb", "--log-level", "error"),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield json.loads(process.stdout.readline())
        finally:
            process.kill()


@pytest.fixture
def address(ready) -> tuple[str, int]:
    host, _, port = ready["listeners"]["memcached"].rpartition(":")
    return host, int(port)


@pytest.fixture
def client(address) -> Iterator[Client]:
    with closing(Client(address, default_noreply=False, timeout=10)) as client:
        client.flush_all()
        yield client


@pytest.fixture
def resp(ready) -> Iterator[redis.Redis]:
    with redis.Redis(port=int(ready["listeners"]["resp"].rsplit(":", 1)[1])) as resp:
        yield resp


def test_set_get_delete(client):
    assert client.set("k", b"value")
    assert client.get("k") == b"value"
    assert client.get("none") is None
    assert client.delete("k")
    assert not client.delete("k")
    assert client.get("k") is None


def test_add_replace_append_prepend(client):
    assert not client.replace("k", b"1")
    assert not client.append("k", b"1")
    assert client.add("k", b"1")
    assert not client.add("k", b"2")
    assert client.replace("k", b"2")
    assert client.append("k", b"3")
    assert client.prepend("k", b"1")
    assert client.get("k") == b"123"


def test_many(client):
    values = {f"k{number}": b"v%d" % number for number in range(300)}
    assert client.set_many(values) == []
    assert client.get_many(list(values)) == values
    assert set(client.gets_many(["k1", "k2"])) == {"k1", "k2"}
    assert client.delete_many(["k1", "k2"])
    assert len(client.get_many(list(values))) == 298


def test_cas(client):
    assert client.cas("k", b"1", b"1") is None
    client.set("k", b"1")
    value, unique = client.gets("k")
    assert (value, client.gets("k")) == (b"1", (b"1", unique))
    assert client.cas("k", b"2", unique) is True
    assert client.cas("k", b"3", unique) is False
    _, unique = client.gets("k")
    client.set("k", b"other")
    assert client.cas("k", b"3", unique) is False
    assert client.get("k") == b"other"


def test_a_change_by_resp_spoils_a_unique_id(client, resp):
    client.set("k", b"1")
    _, unique = client.gets("k")
    resp.incr("k")
    assert client.cas("k", b"9", unique) is False
    assert client.get("k") == b"2"


def test_incr_and_decr(client):
    assert client.incr("n", 1) is None
    client.set("n", b"10")
    assert client.incr("n", 5) == 15
    assert client.decr("n", 8) == 7
    assert client.decr("n", 100) == 0
    client.set("n", str((1 << 64) - 1).encode())
    assert client.incr("n", 1) == 0
    client.set("n", b"text")
    with pytest.raises(MemcacheClientError, match="non-numeric"):
        client.incr("n", 1)


def test_lifetimes(address, client, resp):
    assert client.set("k", b"v", expire=100)
    assert 0 < resp.ttl("k") <= 100
    assert client.touch("k", expire=1000)
    assert 100 < resp.ttl("k") <= 1000
    assert raw(address, b"gat 50 k none\r\nquit\r\n") == b"VALUE k 0 1\r\nv\r\nEND\r\n"
    assert 0 < resp.ttl("k") <= 50
    assert raw(address, b"gats 0 k\r\nquit\r\n").startswith(b"VALUE k 0 1 ")
    assert resp.ttl("k") == -1
    assert client.set("k", b"v", expire=-1)
    assert client.get("k") is None
    assert not client.touch("none", expire=5)


def test_flags_stay_with_the_value(address, client, resp):
    with closing(Client(address, serde=pickle_serde, default_noreply=False)) as pickling:
        for value in (b"bytes", "text", 7, {"a": [1, 2]}, None, 1 << 70):
            pickling.set("k", value)
            assert pickling.get("k") == value
        pickling.set("n", 41)
        assert pickling.incr("n", 1) == 42
        assert pickling.get("n") == 42
        assert resp.get("n") == b"42"
        assert resp.type("n") == b"string"
        assert resp.append("n", "0") == 3
        assert resp.strlen("n") == 3


def test_the_same_keys_through_both_protocols(client, resp):
    client.set("k", b"from memcached")
    assert resp.get("k") == b"from memcached"
    resp.set("k", "from redis", ex=60)
    assert client.get("k") == b"from redis"
    resp.rpush("list", "a")
    assert client.get("list") is None
    with pytest.raises(MemcacheServerError, match="another type"):
        client.append("list", b"b")
    resp.flushall()
    assert client.get("k") is None


def test_noreply(client):
    client.set("k", b"1", noreply=True)
    client.incr("k", 1, noreply=True)
    client.append("k", b"0", noreply=True)
    client.delete("none", noreply=True)
    assert client.get("k") == b"20"


def test_large_and_odd_values(client):
    for value in (b"", b"\r\n", b"END\r\n", bytes(range(256)), b"x" * (1 << 20)):
        client.set("k", value)
        assert client.get("k") == value
    with pytest.raises(MemcacheServerError, match="too large"):
        client.set("k", b"x" * ((1 << 20) + 1))
    assert client.get("k") == b"x" * (1 << 20)
    with pytest.raises(MemcacheIllegalInputError):
        client.set("k" * 251, b"v")


def test_stats_version_and_the_rest(client):
    client.set("k", b"v")
    stats = client.stats()
    assert (stats[b"curr_items"], stats[b"threads"]) == (1, 1)
    assert client.stats("settings") == {}
    assert client.version().startswith(b"minidist")
    assert client.cache_memlimit(64)
    assert client.flush_all(delay=3600)
    assert client.get("k") == b"v"
    with pytest.raises(MemcacheClientError):
        client.incr("k", -1)


def raw(address: tuple[str, int], data: bytes) -> bytes:
    """What the server says until it closes."""
    with socket.create_connection(address, timeout=10) as connection:
        connection.sendall(data)
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


def test_nonsense_is_answered_in_its_words(address):
    said = raw(
        address,
        b"\r\nget\r\nnosuch\r\nset k 0 0 x\r\nset k 0 0\r\ndelete k 5\r\ntouch k\r\nincr k x\r\nshutdown\r\nquit\r\n",
    )
    assert said.split(b"\r\n") == [
        b"ERROR",
        b"ERROR",
        b"ERROR",
        b"CLIENT_ERROR bad command line format",
        b"ERROR",
        b"CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]",
        b"ERROR",
        b"CLIENT_ERROR invalid numeric delta argument",
        b"ERROR: shutdown not enabled",
        b"",
    ]
    assert raw(address, b"\x80\x01\x00\x00").startswith(b"SERVER_ERROR the binary protocol")


def test_a_long_pipeline_is_answered_in_order(address, client):
    client.set("big", b"x" * 100_000)
    said = raw(address, b"get big\r\n" * 200 + b"get " + b"big " * 100 + b"\r\nquit\r\n")
    assert (
        said
        == (b"VALUE big 0 100000\r\n" + b"x" * 100_000 + b"\r\nEND\r\n") * 200
        + (b"VALUE big 0 100000\r\n" + b"x" * 100_000 + b"\r\n") * 100
        + b"END\r\n"
    )


def test_passwords_and_foreign_addresses_are_refused(tmp_path):
    users = tmp_path / "users"
    users.write_text("default:secret\n")
    for options, said in (
        (["--memcached", "127.0.0.1:0", "--auth-file", str(users)], "its clients have no passwords"),
        (["--memcached", "0.0.0.0:0"], "--memcached: given '0.0.0.0:0', allowed: a loopback address"),
    ):
        command = [sys.executable, "-m", "minidist", "cache", "--listen", "127.0.0.1:0", *options]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
        assert done.returncode == 2
        assert said in done.stderr
        assert done.stderr.count("\n") == 1
