"""What the subjects measure and how they read their clients; the servers themselves are not run here."""

import json
import os
import socket
import subprocess
import sys
import threading

import pytest
from lab import client, machine
from lab.client import Client
from lab.figures import Target
from lab.servers import Running
from peers import memcached
from subjects import cache, stops

MEMASLAP = """#!/bin/sh
cp "$(echo "$@" | sed 's/.*-F //')" {folder}/given
echo 'get_misses: {misses}'
echo 'Run time: 2.0s Ops: 313946 TPS: 156954 Net_rate: 17.8M/s'
"""


def test_cases_of_the_cache_have_names_of_their_own_and_the_targets_of_their_kind():
    names = [str(case) for case in cache.CASES]
    assert len(set(names)) == len(names)
    assert {"GET, pipeline 1", "MGET 100 keys, pipeline 1", "SET 100 kB, pipeline 1"} < set(names)
    of = dict(zip(names, cache.CASES, strict=True))
    assert of["GET, pipeline 16"].targets[0] == Target(0.5, 0.8)
    assert of["MGET 100 keys, pipeline 1"].targets[0] == Target(0.6, 0.8)
    assert of["PING, pipeline 1"].targets == (Target(), Target())
    assert of["GET 100 kB, pipeline 1"].keys * 102_400 <= cache.MOST_BYTES


@pytest.fixture
def memaslap(tmp_path, monkeypatch):
    """Puts a program of this name on the path that finds so many keys missing."""

    def put(misses):
        program = tmp_path / "memaslap"
        program.write_text(MEMASLAP.format(folder=tmp_path, misses=misses))
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        monkeypatch.setattr(memcached, "CLIENTS", ("memaslap",))
        monkeypatch.setattr(memcached, "pinned", lambda core, command: command)
        return Running("m", "1", "127.0.0.1", 1, 1)

    return put


def test_memaslap_is_told_what_to_send_and_its_count_is_read(memaslap, tmp_path):
    server = memaslap(0)
    assert memcached.benchmark(server, 1.0, 2.0, tmp_path, core=0, size=64) == (313946, 2.0)
    assert (tmp_path / "given").read_text().split() == "key 16 16 1 value 64 64 1 cmd 0 0 1 1".split()


def test_keys_that_were_not_found_spoil_a_run(memaslap, tmp_path):
    with pytest.raises(RuntimeError, match="memaslap against m"):
        memcached.benchmark(memaslap(3), 1.0, 2.0, tmp_path, core=0, size=64)


@pytest.fixture
def pongs():
    """A server that answers whatever it reads with so many +PONGs as there are commands."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            connection, _ = listener.accept()
            with connection:
                while data := connection.recv(65_536):
                    connection.sendall(b"+PONG\r\n" * data.count(b"*"))

        thread = threading.Thread(target=serve)
        thread.start()
        yield Running("pongs", "1", "127.0.0.1", listener.getsockname()[1], os.getpid())
        thread.join()


def test_the_client_asks_one_by_one_and_many_at_once(pongs):
    assert client.encode(["SET", b"k", 5]) == b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\n5\r\n"
    with Client(pongs) as asking:
        assert asking.ask("PING") == b"PONG"
        asking.send_all(("PING",) for _ in range(1201))
        assert asking.ask("PING") == b"PONG"


def test_the_pinger_tells_its_longest_waits(pongs):
    command = [sys.executable, str(stops.PINGER), pongs.host, str(pongs.port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as pinger:
        assert pinger.stdout.readline() == "ready\n"
        told = json.loads(pinger.communicate()[0])
    assert told["worst_ms"] == sorted(told["worst_ms"], reverse=True)
    assert len(told["worst_ms"]) == min(5, told["pings"])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_process_stays_on_its_core_during_the_block_only():
    allowed = os.sched_getaffinity(0)
    core = min(allowed)
    with machine.staying_on(core):
        assert os.sched_getaffinity(0) == {core}
    assert os.sched_getaffinity(0) == allowed
    assert machine.peak_bytes(os.getpid()) >= machine.resident_bytes(os.getpid())
