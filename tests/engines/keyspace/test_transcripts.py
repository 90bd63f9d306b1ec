"""Every command with its replies, on the engine; and the same transcripts on a real redis-server where there is one."""

import random
from pathlib import Path

import pytest

from minidist.components.cache.config import CacheConfig
from minidist.components.cache.settings import CacheSettings
from minidist.components.cache.state import CacheService
from minidist.runtime.config import Address

TRANSCRIPTS = sorted((Path(__file__).parent / "transcripts").glob("*.txt"))
# What a real server cannot be asked: to let time pass, or what only we decide.
NOT_ON_REDIS = {
    "expiry_over_time.txt",
    "streams_over_time.txt",
    "streams_since_7_2.txt",
    "acl_since_7_2.txt",
    "hash_ttl_over_time.txt",
}


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_on_the_engine(path, world, play):
    config = CacheConfig(max_memory=0, eviction="noeviction")
    service = CacheService(config, random.Random(1))
    current = [config]

    def apply(changed: CacheConfig) -> None:
        current[0] = changed
        service.configure(changed)

    service.settings = CacheSettings(lambda: current[0], apply, lambda: Address("127.0.0.1", 6379), service.users)
    world.service, world.keyspace = service, service.keyspace
    client = world.client()
    play(path, lambda command: client.show(*command), world.wait)


@pytest.mark.parametrize(
    "path", [path for path in TRANSCRIPTS if path.name not in NOT_ON_REDIS], ids=lambda path: path.stem
)
def test_on_a_real_server(path, redis_client, play):
    client = redis_client()
    play(path, lambda command: client.show(*command), lambda ms: pytest.fail("a real server's time cannot be moved"))
