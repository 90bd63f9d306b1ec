"""Recording clients: every answer is ok, fail or info, and nothing is sent twice. Against a real cache and a liar."""

import asyncio
import contextlib
import json
import socket
import threading

import pytest
import redis.exceptions

from minidist.engines.checking import Outcome, UnsuitableError
from minidist.testing.errors import UsageError
from minidist.testing.recording import Recorder, ViolatedError

OK, FAIL, INFO = Outcome.OK, Outcome.FAIL, Outcome.INFO


@contextlib.contextmanager
def liar(*replies: bytes | None):
    """A server that answers each command with the next of these replies; None closes instead. Yields URL, commands."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(10)
    seen: list[bytes] = []

    def serve() -> None:
        left = list(replies)
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection:
                    connection.settimeout(10)
                    while data := connection.recv(65_536):
                        # The library introduces itself first (CLIENT SETINFO), and that is pipelined.
                        for _ in range(data.count(b"SETINFO")):
                            connection.sendall(b"+OK\r\n")
                        if b"SETINFO" in data:
                            continue
                        seen.append(data)
                        reply = left.pop(0) if left else b"+OK\r\n"
                        if reply is None:
                            break
                        connection.sendall(reply)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"redis://127.0.0.1:{listener.getsockname()[1]}/0?protocol=2", seen
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(10)


def lines(recorder: Recorder) -> list[dict[str, object]]:
    return [json.loads(line) for line in recorder.lines]


def test_a_register(minidist_cache):
    recorder = Recorder()
    with recorder.redis(minidist_cache.url, "cas-register", node="cache-1") as client:
        assert client.read("k").value is None
        assert client.write("k", 1).ok
        assert client.cas("k", 1, "two").ok
        assert client.cas("k", 1, 3).outcome is FAIL
        assert client.read("k").value == "two"
    assert recorder.check("cas-register").operations == 5
    first, second, *_ = lines(recorder)
    assert first == {"process": 0, "type": "invoke", "f": "read", "key": "k", "time": first["time"], "node": "cache-1"}
    assert second["type"] == "ok"
    assert 0 <= first["time"] <= second["time"]


def test_counters_sets_and_lists(minidist_cache):
    recorder = Recorder()
    with recorder.redis(minidist_cache.url, "counter") as client:
        assert client.read("c").value == 0
        client.add("c", 5)
        assert client.read("c").value == 5
    recorder.check("counter")

    recorder = Recorder()
    with recorder.redis(minidist_cache.url, "list-append") as client, pytest.raises(UsageError, match="append"):
        client.write("l", 1)


async def test_asyncio(minidist_cache):
    recorder = Recorder()

    async def worker(number: int) -> None:
        async with recorder.redis_asyncio(minidist_cache.url, "register") as client:
            for step in range(10):
                await client.write("k", number * 100 + step)
                assert (await client.read("k")).ok

    async with asyncio.TaskGroup() as group:
        for number in range(4):
            group.create_task(worker(number))
    verdict = recorder.check("register")
    assert verdict.operations == 80
    assert {operation.process for operation in recorder.operations()} == {0, 1, 2, 3}


def test_values_compare_as_they_were_written(minidist_cache):
    """Redis has only bytes: "7" and 7 are one value, bytes that are no text stay bytes."""
    recorder = Recorder()
    with recorder.redis(minidist_cache.url, "register") as client:
        for value in ("7", 7, "07", "text", "-0", b"\xff\x00", b"text", -12):
            client.write("k", value)
            client.read("k")
    recorder.check("register")
    assert [line["value"] for line in lines(recorder)[3::4]] == [
        7, 7, "07", "text", "-0", {"b64": "/wA="}, "text", -12,
    ]  # fmt: skip


def test_nobody_there_is_fail():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    recorder = Recorder()
    with recorder.redis(f"redis://127.0.0.1:{port}/0", "register") as client:
        assert client.write("k", 1).outcome is FAIL
        assert client.write("k", 2).outcome is FAIL
    assert {line["process"] for line in lines(recorder)} == {0}


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        (b"-CLUSTERDOWN no leader\r\n", FAIL),
        (b"-READONLY You can't write against a read only replica.\r\n", FAIL),
        (b"-MOVED 12182 127.0.0.1:7002\r\n", FAIL),
        (b"-TRYAGAIN later\r\n", FAIL),
        (b"-LOADING Redis is loading the dataset in memory\r\n", FAIL),
        (b"-MISCONF disk is full\r\n", FAIL),
        (b"-UNKNOWN outcome: no answer from a quorum in 2 s\r\n", INFO),
        (b"-ERR what a proxy says when its upstream does not answer\r\n", INFO),
        (b"-NEWWORD of a server we do not know\r\n", INFO),
        (None, INFO),
        (b"", INFO),
    ],
    ids=lambda value: (value or b"silence")[:12].decode() if isinstance(value, bytes | None) else value.value,
)
def test_what_an_answer_means(reply, outcome):
    recorder = Recorder()
    with liar(reply) as (url, seen), recorder.redis(url, "register", timeout_s=0.3) as client:
        assert client.write("k", 1).outcome is outcome
        assert client.write("k", 2).ok
        assert len(seen) == 2, "each command is sent once"
    # A process whose operation is in doubt goes on under a new number.
    assert lines(recorder)[2]["process"] == (1 if outcome is INFO else 0)
    assert lines(recorder)[1]["error"]


@pytest.mark.parametrize("reply", [None, b"-UNKNOWN outcome\r\n", b"-READONLY no\r\n"])
async def test_the_same_with_asyncio(reply):
    recorder = Recorder()
    with liar(reply) as (url, seen):
        async with recorder.redis_asyncio(url, "register", timeout_s=0.3) as client:
            assert (await client.write("k", 1)).outcome is (FAIL if reply and b"READONLY" in reply else INFO)
            assert (await client.write("k", 2)).ok
        assert len(seen) == 2


def test_a_connection_closed_while_idle_is_made_again(minidist_cache):
    recorder = Recorder()
    with recorder.redis(minidist_cache.url, "register") as client:
        client.write("k", 1)
        with minidist_cache.faults.reset():
            assert client.write("k", 2).outcome in (FAIL, INFO)
        assert client.write("k", 3).ok


async def test_a_cancelled_operation_is_in_doubt():
    recorder = Recorder()
    with liar(b"") as (url, seen):
        async with recorder.redis_asyncio(url, "register") as client:
            task = asyncio.ensure_future(client.write("k", 1))
            while not seen:
                await asyncio.sleep(0)
            for _ in range(100):  # the client's turn to begin to wait: wait_for of 3.11 loses a cancellation before
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
    assert [line["type"] for line in lines(recorder)] == ["invoke", "info"]


def test_an_interrupted_operation_is_in_doubt_and_its_answer_is_nobody_elses(monkeypatch):
    recorder = Recorder()
    with liar(b"$1\r\n1\r\n", b"$1\r\n2\r\n") as (url, _), recorder.redis(url, "register") as client:
        with monkeypatch.context() as patch:
            client._connect()
            patch.setattr(client._connection, "read_response", lambda: interrupt())
            with pytest.raises(KeyboardInterrupt):
                client.write("k", 1)
        assert client.read("k").value == 2
    assert [(line["process"], line["type"]) for line in lines(recorder)][:3] == [
        (0, "invoke"),
        (0, "info"),
        (1, "invoke"),
    ]


def interrupt():
    raise KeyboardInterrupt


def test_a_value_that_cannot_be_sent_is_the_callers_mistake(minidist_cache):
    recorder = Recorder()
    with recorder.redis(minidist_cache.url, "register") as client:
        with pytest.raises(redis.exceptions.DataError):
            client.write("k", {"a": 1})
        assert client.write("k", 1).ok


def test_a_swap_that_lost_is_fail():
    recorder = Recorder()
    replies = [b"+OK\r\n", b"$1\r\n1\r\n", b"+OK\r\n", b"+QUEUED\r\n", b"*-1\r\n"]
    with liar(*replies) as (url, _), recorder.redis(url, "cas-register") as client:
        done = client.cas("k", 1, 2)
        assert (done.outcome, done.error) == (FAIL, "the key changed meanwhile")


def test_a_swap_that_broke_before_exec_is_fail():
    recorder = Recorder()
    with liar(b"+OK\r\n", b"$1\r\n1\r\n", None) as (url, _), recorder.redis(url, "cas-register") as client:
        assert client.cas("k", 1, 2).outcome is FAIL


def test_transactions():
    recorder = Recorder()
    replies = [b"+OK\r\n", b"+QUEUED\r\n", b"+QUEUED\r\n", b"*2\r\n:1\r\n*1\r\n$1\r\n7\r\n"]
    with liar(*replies) as (url, seen), recorder.redis(url, "list-append") as client:
        done = client.txn([["append", "x", 7], ["r", "x", None]])
        assert done.value == [["append", "x", 7], ["r", "x", [7]]]
    assert [command.split(b"\r\n")[2] for command in seen] == [b"MULTI", b"RPUSH", b"LRANGE", b"EXEC"]
    recorder.check("list-append")


@pytest.mark.parametrize("reply", [b"", None, b"-ERR no\r\n"])
def test_a_read_without_a_value_had_no_effect(reply):
    recorder = Recorder()
    with liar(reply) as (url, _), recorder.redis(url, "register", timeout_s=0.3) as client:
        assert client.read("k").outcome is FAIL
        assert client.write("k", 1).ok
    assert {line["process"] for line in lines(recorder)} == {0}


def test_a_transaction_of_which_one_command_failed_is_in_doubt():
    """Redis undoes nothing: the other commands happened."""
    recorder = Recorder()
    replies = [b"+OK\r\n", b"+QUEUED\r\n", b"+QUEUED\r\n", b"*2\r\n:1\r\n-WRONGTYPE of another kind\r\n"]
    with liar(*replies) as (url, _), recorder.redis(url, "list-append") as client:
        done = client.txn([["append", "x", 7], ["append", "y", 8]])
    assert (done.outcome, done.error) == (INFO, "ResponseError: WRONGTYPE of another kind")


def test_a_transaction_that_cannot_be_queued_is_fail():
    recorder = Recorder()
    replies = [b"+OK\r\n", b"-LOADING not yet\r\n"]
    with liar(*replies) as (url, seen), recorder.redis(url, "list-append") as client:
        assert client.txn([["append", "x", 7]]).outcome is FAIL
        assert client.append("x", 8).ok
    assert not any(b"EXEC" in command for command in seen)


def test_what_is_no_number_is_left_to_the_check():
    recorder = Recorder()
    with liar(b"$4\r\nmany\r\n") as (url, _), recorder.redis(url, "counter") as client:
        assert client.read("c").value == "many"
    with pytest.raises(UnsuitableError, match="line 2: a counter's read with the value 'many'"):
        recorder.check("counter")


def test_what_does_not_hold_raises_with_the_evidence(tmp_path):
    recorder = Recorder()
    with liar(b"+OK\r\n", b"$1\r\n9\r\n") as (url, _), recorder.redis(url, "register", node="store-1") as client:
        client.write("k", 1)
        client.read("k")
    with pytest.raises(ViolatedError, match=r"process 0 read 9 .* which was never written") as raised:
        recorder.check("register")
    assert raised.value.verdict.violations[0].name == "phantom read"
    recorder.save(tmp_path / "history.jsonl")
    assert len((tmp_path / "history.jsonl").read_text().splitlines()) == 4


def test_any_protocol():
    recorder = Recorder()
    process = recorder.process("store-1")
    with process.operation("write", "k", 1) as ending:
        ending.ok()
    with pytest.raises(TimeoutError), process.operation("write", "k", 2):
        raise TimeoutError("no answer")
    assert process.number == 1
    with process.operation("read", "k") as ending:
        ending.ok(2)
    with process.operation("write", "k", 3) as ending:
        ending.fail("refused")
    with process.operation("write", "k", 4):
        pass
    assert [operation.outcome for operation in recorder.operations()] == [OK, INFO, OK, FAIL, INFO]
    recorder.check("register")


def test_threads_share_one_clock():
    recorder = Recorder()

    def run() -> None:
        process = recorder.process()
        for value in range(200):
            with process.operation("write", f"k{process.number}", value) as ending:
                ending.ok()

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(recorder.operations()) == 800


def test_an_unknown_model():
    with pytest.raises(UsageError, match="allowed: one of register"):
        Recorder().redis("redis://localhost", "graph")
