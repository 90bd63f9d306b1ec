"""One seed, one run: in this process, in others, whatever their hash seed; and what the hash rests on is named."""

import asyncio
import os
import random
import re
import subprocess
import sys
import uuid
from importlib import metadata

import pytest

from minidist.components import node_type
from minidist.runtime.config import from_table
from minidist.sim.host import Crash
from minidist.sim.loop import Policy
from minidist.sim.network import Conditions, Rule
from minidist.sim.world import World

HASH_SEEDS = ("0", "1", "4242")


def run(seed, policy=Policy.FIFO, keep_trace=False):
    """A node, raw clients, a disk, datagrams, faults and a crash; gives the digest, the steps and what was seen."""
    conditions = Conditions(datagram_loss=0.1, datagram_duplication=0.1)
    with World(seed, policy=policy, conditions=conditions, keep_trace=keep_trace) as world:
        cache, clients = world.host("cache"), [world.host(f"client-{number}") for number in range(3)]
        seen = []

        async def serve():
            kind = node_type("cache")
            table = {"listen": f"{cache.ip}:6379", "admin": f"{cache.ip}:9000", "name": "cache"}
            node = kind(from_table(kind.config_type, table), cache.ports())
            await node.start()
            await asyncio.get_running_loop().create_future()

        async def use(host):
            for number in range(30):
                try:
                    async with asyncio.timeout(2):
                        reader, writer = await asyncio.open_connection("cache", 6379)
                        writer.write(b"SET k%d %s\r\nINCR n\r\n" % (number, uuid.uuid4().hex.encode()))
                        answers = [await reader.readline(), await reader.readline()]
                        seen.append((host.name, answers, random.random()))
                        writer.close()
                except OSError as error:
                    seen.append((host.name, type(error).__name__))
                await asyncio.sleep(random.expovariate(5))

        async def write():
            disk = world.open_disk(clients[0])
            from minidist.runtime.disk import OpenMode

            file = await disk.open("log", OpenMode.CREATE)
            for _ in range(50):
                await file.append(os.urandom(20), sync=True)

        async def main():
            cache.start(serve())
            clients[0].start(write())
            working = [client.start(use(client)) for client in clients]
            await asyncio.sleep(1)
            rule = Rule("partition", frozenset(["cache"]), frozenset(["client-1"]))
            world.network.add_rule(rule)
            await asyncio.sleep(2)
            world.network.remove_rule(rule)
            cache.crash(Crash.POWER)
            await asyncio.sleep(1)
            cache.revive()
            cache.start(serve())
            await asyncio.gather(*working)

        world.run(main(), time_limit_s=1000)
        assert not world.errors
        return world.trace.digest(), world.loop.steps, tuple(map(str, seen)), world.trace.lines


@pytest.mark.parametrize("policy", list(Policy))
def test_the_same_seed_is_the_same_run(policy, seed):
    first = run(seed, policy)
    assert run(seed, policy) == first
    kept = run(seed, policy, keep_trace=True)
    assert kept[:3] == first[:3]  # text is not part of the hash
    assert any("connects to cache:6379" in line for line in kept[3])


def test_other_seeds_are_other_runs():
    runs = [run(seed) for seed in range(5)]
    assert len({digest for digest, *_ in runs}) == 5
    assert len({tuple(seen) for _, _, seen, _ in runs}) == 5
    assert run(1, Policy.SHUFFLE)[0] != run(1)[0]


def test_other_processes_and_hash_seeds_get_the_same_hash():
    program = (
        f"import importlib.util as u; s = u.spec_from_file_location('determinism', {__file__!r});"
        "m = u.module_from_spec(s); s.loader.exec_module(m);"
        "print(m.run(11)[0], m.run(12, m.Policy.SHUFFLE)[0])"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", program], env={**os.environ, "PYTHONHASHSEED": hash_seed}, check=True, timeout=60,
            capture_output=True, text=True,
        ).stdout.strip()
        for hash_seed in HASH_SEEDS
    }  # fmt: skip
    assert digests == {f"{run(11)[0]} {run(12, Policy.SHUFFLE)[0]}"}


def test_an_extra_draw_in_one_stream_changes_no_other():
    def draws(extra):
        with World(5) as world:
            if extra:
                world.streams.network.random()
            streams = world.streams
            return [
                streams.scheduling.random(),
                streams.disk.random(),
                streams.faults.random(),
                streams.of("x").random(),
            ]

    assert draws(False) == draws(True)


def test_the_header_names_what_the_hash_rests_on():
    import httptools  # noqa: F401

    with World(1) as world:
        header = world.trace.header
    assert re.match(rf"CPython 3\.{sys.version_info.minor}; ", header)
    for package in ("pytest", "httptools"):
        assert f"{package} {metadata.version(package)}" in header
