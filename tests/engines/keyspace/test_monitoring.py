"""SLOWLOG, LATENCY and MONITOR on the engine, with a stopwatch that the test moves."""

import pytest

from minidist.engines.keyspace.outputs import Push
from minidist.wire.resp import Pipeline


@pytest.fixture
def timed(world):
    """A world whose stopwatch stands still, but for what `timed.take` adds to every reading."""

    class Stopwatch:
        reading_s = 0.0
        step_s = 0.0

        def __call__(self) -> float:
            self.reading_s += self.step_s
            return self.reading_s

        def configure(self, slower_than_us=10_000, slow_entries=128, threshold_ms=0) -> None:
            world.service.timing.configure(
                slower_than_us=slower_than_us, slow_entries=slow_entries, threshold_ms=threshold_ms
            )

    stopwatch = Stopwatch()
    world.service.timing.stopwatch_s = stopwatch
    return stopwatch


class TestSlowLog:
    def test_zero_takes_everything(self, timed, client):
        timed.configure(slower_than_us=0)
        client.send("CLIENT", "SETNAME", "me")
        client.send("SET", "k", "v")
        client.send("GET", "k")
        shown = client.show("SLOWLOG", "GET", "2")
        assert shown == (
            '[[2, 1700000000, 0, ["GET", "k"], "127.0.0.1:50000", "me"], '
            '[1, 1700000000, 0, ["SET", "k", "v"], "127.0.0.1:50000", "me"]]'
        )
        assert client.show("SLOWLOG", "RESET") == "OK"
        assert client.show("SLOWLOG", "LEN") == "1"  # the RESET itself

    def test_a_slow_command_is_kept_a_quick_one_not_even_timed(self, timed, client):
        timed.configure()
        timed.step_s = 0.02
        client.send("SET", "k", "v")
        assert timed.reading_s == 0
        client.send("KEYS", "*")
        assert '20000, ["KEYS", "*"]' in client.show("SLOWLOG", "GET", "-1")

    def test_many_arguments_are_timed(self, timed, client):
        timed.configure()
        timed.step_s = 0.02
        client.send("MGET", *range(300))
        shown = client.show("SLOWLOG", "GET", "1")
        assert '"29", "... (270 more arguments)"]' in shown

    def test_inside_a_transaction_its_commands_are_kept_not_exec(self, timed, client):
        timed.configure()
        timed.step_s = 0.02
        client.send("MULTI")
        client.send("GET", "k")
        client.send("EXEC")
        entries = client.service.timing.slow_log.entries
        assert [each.args[0] for each in entries] == [b"GET", b"MULTI"]

    def test_failures_are_kept_too(self, timed, client):
        timed.configure(slower_than_us=0)
        client.send("SET", "k", "v")
        client.send("INCR", "k")
        assert client.service.timing.slow_log.entries[0].args == (b"INCR", b"k")

    def test_limits(self, timed, client):
        timed.configure(slower_than_us=0, slow_entries=3)
        for number in range(5):
            client.send("SET", "k", "v" * 200 if number == 4 else number)
        assert client.show("SLOWLOG", "LEN") == "3"
        newest = client.service.timing.slow_log.entries[1]
        assert newest.args[2] == b"v" * 128 + b"... (72 more bytes)"
        timed.configure(slower_than_us=0, slow_entries=0)
        assert client.show("SLOWLOG", "LEN") == "0"

    def test_pipelines_are_timed_one_by_one(self, timed, world, client):
        pipeline = Pipeline([b"GET"] * 9, [b"%d" % number for number in range(9)])
        timed.configure(slower_than_us=0)
        world.service.run(client.session, pipeline, world.now_ms)
        assert client.show("SLOWLOG", "LEN") == "9"

    def test_passwords_are_not_kept(self, timed, client):
        timed.configure(slower_than_us=0)
        client.send("AUTH", "u", "p")
        client.send("HELLO", "2", "AUTH", "u", "p")
        client.send("CONFIG", "SET", "maxmemory", "1", "requirepass", "p")
        assert [each.args[1:] for each in client.service.timing.slow_log.entries] == [
            (b"SET", b"maxmemory", b"1", b"requirepass", b"(redacted)"),
            (b"2", b"AUTH", b"(redacted)", b"(redacted)"),
            (b"(redacted)", b"(redacted)"),
        ]

    def test_off_means_the_plain_functions(self, timed, world):
        service = world.service
        plain = {name: each.run for name, each in service.table.commands.items()}
        timed.configure(slower_than_us=0)
        assert all(each.run is not plain[name] for name, each in service.table.commands.items())
        timed.configure()
        assert service.table.commands["GET"].run is plain["GET"]
        assert service.table.commands["KEYS"].run is not plain["KEYS"]
        timed.configure(slower_than_us=-1)
        assert all(each.run is each.timed_run is plain[name] for name, each in service.table.commands.items())


class TestLatency:
    def test_spikes_by_event(self, timed, world, client):
        timed.configure(threshold_ms=10)
        timed.step_s = 0.015
        client.send("KEYS", "*")
        timed.step_s = 0.030
        client.send("KEYS", "*")
        world.wait(5000)
        timed.step_s = 0.012
        client.send("KEYS", "*")
        timed.step_s = 0.0
        assert client.show("LATENCY", "LATEST") == '[["command", 1700000005, 12, 30]]'
        assert client.show("LATENCY", "HISTORY", "command") == "[[1700000000, 30], [1700000005, 12]]"
        assert "high 30 ms, low 12 ms (all time high 30 ms)" in client.show("LATENCY", "GRAPH", "command")
        assert "2 latency spikes" in client.show("LATENCY", "DOCTOR")
        assert client.show("LATENCY", "RESET", "command", "nope") == "1"
        assert client.show("LATENCY", "LATEST") == "[]"


@pytest.fixture
def shown(world):
    """What monitors were shown since the last call."""

    def shown():
        lines = [
            output.message.decode().strip().partition("] ")[2]
            for output in world.service.outbox
            if isinstance(output, Push)
        ]
        world.service.outbox.clear()
        return lines

    return shown


class TestMonitor:
    def test_shows_every_command_once(self, world, shown):
        watcher, client = world.client(), world.client()
        assert watcher.show("MONITOR") == "OK"
        client.send("SET", "k", b'\x00"\\\n\xff')
        client.send("MULTI")
        client.send("GET", "k")
        client.send("EXEC")
        client.send("GET")
        client.send("INCR", "k")
        assert shown() == ['"SET" "k" "\\x00\\"\\\\\\n\\xff"', '"MULTI"', '"GET" "k"', '"EXEC"', '"INCR" "k"']

    def test_the_whole_line(self, world):
        watcher, client = world.client(), world.client()
        watcher.send("MONITOR")
        world.wait(7)
        client.send("SELECT", "3")
        (push,) = world.service.outbox
        assert push.message == b'+1700000000.007000 [3 127.0.0.1:50000] "SELECT" "3"\r\n'
        assert push.sessions == [watcher.session]

    def test_scripts_come_before_their_commands(self, world):
        watcher, client = world.client(), world.client()
        watcher.send("MONITOR")
        client.send("EVAL", "return redis.call('SET', KEYS[1], 'v')", 1, "k")
        client.send("EVALSHA", "no", 0)
        lines = [push.message for push in world.service.outbox]
        assert lines == [
            b'+1700000000.000000 [0 127.0.0.1:50000] "EVAL" "return redis.call(\'SET\', KEYS[1], \'v\')" "1" "k"\r\n',
            b'+1700000000.000000 [0 lua] "SET" "k" "v"\r\n',
            b'+1700000000.000000 [0 127.0.0.1:50000] "EVALSHA" "no" "0"\r\n',
        ]

    def test_no_passwords_no_administration(self, world, shown):
        watcher, client = world.client(), world.client()
        watcher.send("MONITOR")
        client.send("AUTH", "secret")
        client.send("CONFIG", "SET", "requirepass", "secret")
        client.send("HELLO", "2", "AUTH", "default", "secret")
        assert "secret" not in str(shown())

    def test_pipelines_and_new_clients(self, world, shown):
        world.client().send("MONITOR")
        client = world.client()
        pipeline = Pipeline([b"GET"] * 9, [b"%d" % number for number in range(9)])
        world.service.run(client.session, pipeline, world.now_ms)
        assert shown() == [f'"GET" "{number}"' for number in range(9)]

    @pytest.mark.parametrize("how", ["RESET", "close"])
    def test_ends(self, world, shown, how):
        watcher, client = world.client(), world.client()
        watcher.send("MONITOR")
        assert client.session.gated
        if how == "RESET":
            watcher.send("RESET")
        else:
            world.service.close(watcher.session)
        world.service.outbox.clear()
        client.send("GET", "k")
        assert shown() == []
        assert not client.session.gated


def test_sleeping_for_ever_ends(world, client):
    assert client.send("DEBUG", "SLEEP", "inf") == b""  # not yet
    world.wait(3_600_000)
    assert client.show("DEBUG", "SLEEP", "inf") == "OK"
