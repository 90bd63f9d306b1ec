"""Every command with its replies, on the engine; and the same transcripts on a real redis-server where there is one."""

import random
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from minidist.components.cache.config import CacheConfig
from minidist.components.cache.settings import CacheSettings
from minidist.components.cache.state import CacheService
from minidist.runtime.config import Address

TRANSCRIPTS = sorted((Path(__file__).parent / "transcripts").glob("*.txt"))
# What a real server cannot be asked: to let time pass, or what only we decide.
NOT_ON_REDIS = {"expiry_over_time.txt"}


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


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory) -> Iterator[socket.socket]:
    """A connection to a fresh redis-server on a Unix socket."""
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    directory = tmp_path_factory.mktemp("redis")
    path = directory / "s"
    command = ["redis-server", "--port", "0", "--unixsocket", str(path), "--save", "", "--dir", str(directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if "ready to accept connections" in line.lower():
                    break
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(path))
                connection.settimeout(10)
                yield connection
        finally:
            process.terminate()


@pytest.mark.parametrize(
    "path", [path for path in TRANSCRIPTS if path.name not in NOT_ON_REDIS], ids=lambda path: path.stem
)
def test_on_a_real_server(path, redis_server, play, showing_reader, encode: Callable[[list[bytes]], bytes]):
    reader = showing_reader()

    def send(command: list[bytes]) -> str:
        redis_server.sendall(encode(command))
        while not isinstance(shown := reader.next(), str):
            reader.feed(redis_server.recv(65536))
        return shown

    send([b"RESET"])
    send([b"FLUSHALL"])
    play(path, send, lambda ms: pytest.fail("a real server's time cannot be moved"))
