"""What `--backing` and its companions may be, and how a wrong one is refused."""

import subprocess
import sys

import pytest

from minidist.components.cache.backing.places import HttpPlace, RedisPlace, SqlitePlace, parse_place
from minidist.components.cache.config import CacheConfig
from minidist.runtime.config import Address, ConfigError, from_table

AT = "http://127.0.0.1:80/x"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("http://localhost", HttpPlace(Address("localhost", 80), "", "http://localhost:80")),
        ("http://[::1]:8080/a/b/", HttpPlace(Address("::1", 8080), "/a/b", "http://[::1]:8080/a/b")),
        ("redis://h", RedisPlace(Address("h", 6379), 0, "", "", "redis://h:6379/0")),
        ("redis://u:p%40@h:1/7", RedisPlace(Address("h", 1), 7, "u", "p@", "redis://h:1/7")),
        ("sqlite:/tmp/a b.db?table=t_1", SqlitePlace("/tmp/a b.db", "t_1", "sqlite:/tmp/a b.db?table=t_1")),
    ],
)
def test_places(text, place):
    assert parse_place(text) == place


@pytest.mark.parametrize(
    "text",
    [
        "https://h/", "http://", "http:///x", "http://h:0x1/", "http://h:99999/", "http://u:p@h/", "http://h/?q=1",
        "http://h/a b", "http://h/\r\nX: y", "redis://h/x", "redis://h/1/2", "ftp://h/", "h:80", "sqlite:", "sqlite:f",
        "sqlite:f?table=", "sqlite:f?table=a;drop", "sqlite:f?table=t&x=1", "sqlite:?table=t", "sqlite:f?tab",
    ],
)  # fmt: skip
def test_what_is_no_place(text):
    with pytest.raises(ConfigError, match=r"--backing: given .*, allowed: http://HOST"):
        from_table(CacheConfig, {"backing": text})


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"strategy": "write-through"}, "--strategy: given 'write-through', allowed: only with --backing"),
        ({"negative_ttl": "5s"}, "--negative-ttl: given 5000, allowed: only with --backing"),
        ({"write_behind_lag": "5s"}, "--write-behind-lag: .* only with --backing"),
        ({"backing": AT, "write_behind_lag": "5s"}, "--write-behind-lag: .* only with --strategy write-behind"),
        (
            {"backing": AT, "strategy": "write-through", "write_behind_limit": "5mb"},
            "--write-behind-limit: .* only with --strategy write-behind",
        ),
        ({"backing": AT, "memcached": "127.0.0.1:0"}, "--memcached: .* only without --backing"),
        ({"backing": AT, "strategy": "write-around"}, "strategy: given 'write-around', allowed: one of read-through"),
        ({"backing": AT, "ttl_jitter": "101"}, "ttl_jitter"),
        ({"backing": AT, "backing_timeout": "0"}, "backing_timeout"),
    ],
)
def test_combinations(options, text):
    with pytest.raises(ConfigError, match=text):
        from_table(CacheConfig, options)


def test_passwords_are_not_shown():
    with pytest.raises(ConfigError) as caught:
        from_table(CacheConfig, {"backing": "redis://ann:secret@h:1/x"})
    assert "secret" not in str(caught.value)
    assert "***" in str(caught.value)
    config = from_table(CacheConfig, {"backing": "redis://ann:secret@h:1/2"})
    assert "secret" not in str(config.shown())


def test_nothing_of_it_is_loaded_without_a_store():
    program = (
        "import sys, random; from minidist.components.cache.server import Cache;"
        "from minidist.components.cache.config import CacheConfig; from minidist.runtime.ports import real_ports;"
        "Cache(CacheConfig(), real_ports('', 1));"
        "print([name for name in sys.modules if 'caching' in name or 'backing' in name or 'sqlite' in name])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
