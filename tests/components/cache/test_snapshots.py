"""A cache with `--snapshot` is warm after a restart, and a file is never half a snapshot."""

import asyncio
import dataclasses
import json
import subprocess
import sys

import pytest

from minidist.runtime.config import ConfigError
from minidist.runtime.disk.faults import DiskFault, DiskFaultKind
from minidist.runtime.disk.port import DiskError

CACHE = [sys.executable, "-m", "minidist", "cache", "--listen", "127.0.0.1:0", "--log-level", "error"]


async def test_warm_after_a_restart(start, tmp_path):
    place = await start(data_dir=str(tmp_path), snapshot="dump.rdb")
    client = await place.client()
    await client.ask("SET", "a", "1")
    await client.ask("SET", "timed", "v", "PX", "100000")
    await client.ask("RPUSH", "list", "x", "y")
    await client.ask("SELECT", "3")
    await client.ask("SET", "b", "2")
    await place.node.stop()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("dump")] == ["dump.rdb"]
    again = await start(data_dir=str(tmp_path), snapshot="dump.rdb")
    client = await again.client()
    assert await client.ask("GET", "a") == b"1"
    assert 0 < await client.ask("PTTL", "timed") <= 100_000
    assert await client.ask("LRANGE", "list", "0", "-1") == [b"x", b"y"]
    await client.ask("SELECT", "3")
    assert await client.ask("GET", "b") == b"2"


async def test_a_snapshot_that_is_larger_than_the_limit_does_not_pass_it(start, tmp_path):
    place = await start(data_dir=str(tmp_path), snapshot="dump.rdb")
    database, now_ms = place.node.service.keyspace.databases[0], place.node.clock.now_ms()
    for number in range(50_000):
        database.put(b"key:%d" % number, b"x" * 20, now_ms)
    await place.node.stop()
    again = await start(data_dir=str(tmp_path), snapshot="dump.rdb", max_memory="2mb")
    keyspace = again.node.service.keyspace
    assert keyspace.count > 2000
    assert keyspace.used_bytes <= keyspace.limit_bytes
    assert keyspace.peak_bytes <= 2 * keyspace.limit_bytes + 1_000_000


async def test_functions_that_cannot_be_loaded_are_an_error_with_their_reason(start, tmp_path):
    pytest.importorskip("lupa")
    place = await start(data_dir=str(tmp_path), snapshot="dump.rdb")
    client = await place.client()
    source = b"#!lua name=mylib\nredis.register_function('f', function() return 1 end)"
    await client.ask("FUNCTION", "LOAD", source)
    await place.node.stop()
    file = tmp_path / "dump.rdb"
    whole = file.read_bytes()
    broken = whole.replace(b"return 1 end)", b"return 1 and)").partition(b"minidist-crc32")[0][:-2]
    checked = b"\xfa\x10minidist-checked\xc0\x01"
    assert checked in broken
    file.write_bytes(broken.replace(checked, b"") + b"\xff" + bytes(8))
    with pytest.raises(DiskError, match="functions of the snapshot"):
        await start(data_dir=str(tmp_path), snapshot="dump.rdb")


async def test_save_answers_when_it_is_written_and_others_are_served(start, tmp_path):
    place = await start(data_dir=str(tmp_path), snapshot="dump.rdb")
    saver, other = await place.client(), await place.client()
    disk = await place.node.ports.open_disk()
    disk.faults.add(DiskFault(DiskFaultKind.SLOW, ms=50))
    for number in range(1000):
        saver.send("SET", f"key:{number}", "x" * 200)
    for _ in range(1000):
        await saver.read()
    saver.send("SAVE")
    while b"rdb_bgsave_in_progress:1" not in await other.ask("INFO", "persistence"):
        await asyncio.sleep(0.001)
    with pytest.raises(Exception, match="already in progress"):
        raise_error(await other.ask("BGSAVE"))
    assert await other.ask("SET", "meanwhile", "v") == b"OK"
    assert await saver.read() == b"OK"
    assert b"rdb_last_save_keys:100" in await other.ask("INFO", "persistence")
    assert (tmp_path / "dump.rdb").stat().st_size > 200_000


async def test_a_snapshot_that_fails_leaves_no_part_of_it(start, tmp_path):
    place = await start(data_dir=str(tmp_path), snapshot="dump.rdb")
    client = await place.client()
    (tmp_path / "dump.rdb").mkdir()  # nothing can take this name
    with pytest.raises(Exception, match=r"dump\.rdb"):
        raise_error(await client.ask("SAVE"))
    assert not (tmp_path / "dump.rdb.tmp").exists()
    assert b"rdb_last_bgsave_status:err" in await client.ask("INFO", "persistence")


async def test_who_has_stopped_waiting_for_a_snapshot_is_not_answered_by_its_end(start, tmp_path):
    place = await start(data_dir=str(tmp_path), snapshot="dump.rdb")
    saver, other = await place.client(), await place.client()
    number = await saver.ask("CLIENT", "ID")
    disk = await place.node.ports.open_disk()
    disk.faults.add(DiskFault(DiskFaultKind.SLOW, ms=50))
    saver.send("SAVE")
    while b"rdb_bgsave_in_progress:1" not in await other.ask("INFO", "persistence"):
        await asyncio.sleep(0.001)
    assert await other.ask("CLIENT", "UNBLOCK", number) == 1
    assert "nobody waits" in str(await saver.read())
    saver.send("BLPOP", "list", "0")
    while b"rdb_bgsave_in_progress:1" in await other.ask("INFO", "persistence"):
        await asyncio.sleep(0.001)
    await other.ask("RPUSH", "list", "x")
    assert await saver.read() == [b"list", b"x"]


def raise_error(reply):
    if isinstance(reply, Exception):
        raise reply
    return reply


async def test_bgsave_and_the_interval(start, tmp_path, until):
    place = await start(data_dir=str(tmp_path), snapshot="dump.rdb", snapshot_interval="1h")
    client = await place.client()
    path = tmp_path / "dump.rdb"

    def written():
        return path.exists() and not place.node.snapshots.running

    assert not path.exists()
    started_s = await client.ask("LASTSAVE")
    assert await client.ask("BGSAVE") == b"Background saving started"
    await until(written)
    path.unlink()
    for _ in range(2):
        place.node.clock.advance(3_600_000)
        await until(written)
        path.unlink()
    assert await client.ask("LASTSAVE") >= started_s + 7200
    place.node.configure(dataclasses.replace(place.node.config, snapshot_interval=0))
    place.node.clock.advance(7_200_000)
    assert not place.node.snapshots.running


async def test_what_cannot_be_written_is_said_and_the_old_one_stays(start, tmp_path):
    place = await start(data_dir=str(tmp_path), snapshot="dump.rdb")
    client = await place.client()
    await client.ask("SET", "a", "1")
    await client.ask("SAVE")
    before = (tmp_path / "dump.rdb").read_bytes()
    disk = await place.node.ports.open_disk()
    full = DiskFault(DiskFaultKind.FULL)
    disk.faults.add(full)
    await client.ask("SET", "b", "2")
    with pytest.raises(Exception, match=r"cannot write 'dump\.rdb\.tmp'"):
        raise_error(await client.ask("SAVE"))
    assert b"rdb_last_bgsave_status:err" in await client.ask("INFO", "persistence")
    assert (tmp_path / "dump.rdb").read_bytes() == before
    disk.faults.remove(full)
    assert await client.ask("SAVE") == b"OK"
    assert b"rdb_last_bgsave_status:ok" in await client.ask("INFO", "persistence")


async def test_a_damaged_file_is_refused_and_kept(start, tmp_path):
    path = tmp_path / "dump.rdb"
    path.write_bytes(b"REDIS0010\xfe\x00\x00\x01a")
    with pytest.raises(DiskError, match=r"cannot load the snapshot 'dump\.rdb': it ends too early.*move it away"):
        await start(data_dir=str(tmp_path), snapshot="dump.rdb")
    assert path.read_bytes() == b"REDIS0010\xfe\x00\x00\x01a"


def test_a_damaged_file_ends_the_process_with_one_line(tmp_path):
    (tmp_path / "dump.rdb").write_bytes(b"no snapshot")
    done = subprocess.run(
        [*CACHE, "--data-dir", str(tmp_path), "--snapshot", "dump.rdb"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "minidist cache: cannot load the snapshot 'dump.rdb': it does not begin like an RDB file, at byte 0; "
        "to start without it, move it away"
    ]


def test_a_kill_leaves_the_last_whole_one(tmp_path):
    command = [*CACHE, "--data-dir", str(tmp_path), "--snapshot", "dump.rdb"]
    for round_ in range(3):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            ready = json.loads(process.stdout.readline())
            host, port = ready["address"].rsplit(":", 1)
            commands = [f"SET round {round_}", "SAVE", *(f"SET key:{at} {'x' * 500}" for at in range(3000)), "BGSAVE"]
            lines = "".join(command + "\r\n" for command in commands)
            talk = [sys.executable, "-c", TALK, host, port, str(len(commands))]
            answers = subprocess.run(talk, input=lines, capture_output=True, text=True, check=True)
            assert answers.stdout.count("+") == len(commands)
            process.kill()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert json.loads(process.stdout.readline())["event"] == "ready"
        process.kill()


# Sends what it reads, and prints as many lines of answers.
TALK = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as connection:
    connection.sendall(sys.stdin.read().encode())
    answers = connection.makefile()
    for _ in range(int(sys.argv[3])):
        print(answers.readline(), end="")
"""


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"snapshot": "dump.rdb"}, "only with --data-dir"),
        ({"snapshot": "../dump.rdb", "data_dir": "."}, "a file name"),
        ({"snapshot_interval": "1m"}, "only with --snapshot"),
    ],
)
async def test_wrong_options(start, options, words):
    with pytest.raises(ConfigError, match=words):
        await start(**options)
