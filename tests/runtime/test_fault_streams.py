"""Whatever faults come and go, a stream keeps its bytes and their order: random schedules over a made-up transport.

Time is virtual, so that delays of minutes take no time, and everything can be repeated.
"""

import asyncio
import gc
import random
import weakref

from hypothesis import given, settings
from hypothesis import strategies as st

from minidist.runtime.clock import Clock
from minidist.runtime.config import Address
from minidist.runtime.connection import Connection
from minidist.runtime.endpoint import Listener
from minidist.runtime.events import EventLog
from minidist.runtime.faults import FaultSet
from minidist.runtime.faults.shim import PIPE_LIMIT_BYTES
from minidist.runtime.logs import NodeLog
from minidist.runtime.ports import Ports


class VirtualLoop(asyncio.SelectorEventLoop):
    """When nothing is ready, it is at once as late as the next timer says."""

    now_s = 1000.0

    def time(self):
        return self.now_s

    def _run_once(self):
        if not self._ready:
            timers = [timer.when() for timer in self._scheduled if not timer.cancelled()]
            self.now_s = max(self.now_s, min(timers, default=0.0))
        super()._run_once()


class Wire(asyncio.Transport):
    """A loop's transport: the other side sends with `arrive`, and has `written`."""

    def __init__(self, protocol):
        super().__init__()
        self.protocol = protocol
        self.written = b""
        self.coming = []
        self.reading = True
        self.closing = False
        self.told_pause = False
        self.eof_written = False

    def arrive(self, data):
        """Bytes, or None for an end of file."""
        self.coming.append(data)
        self.flow()

    def flow(self):
        while self.coming and self.reading and not self.closing:
            data = self.coming.pop(0)
            if data is None:
                if not self.protocol.eof_received():
                    self.close()
            else:
                self.protocol.data_received(data)

    def pause_reading(self):
        assert not self.closing
        self.reading = False

    def resume_reading(self):
        assert not self.closing
        self.reading = True
        asyncio.get_running_loop().call_soon(self.flow)

    def is_reading(self):
        return self.reading and not self.closing

    def write(self, data):
        assert not self.closing
        assert not self.eof_written
        self.written += data

    def write_eof(self):
        self.eof_written = True

    def can_write_eof(self):
        return True

    def push_back(self, paused):
        if paused != self.told_pause and not self.closing:
            self.told_pause = paused
            self.protocol.pause_writing() if paused else self.protocol.resume_writing()

    def get_write_buffer_size(self):
        return 0

    def set_write_buffer_limits(self, high=None, low=None):
        pass

    def close(self):
        self.lose(None)

    abort = close

    def lose(self, error):
        if not self.closing:
            self.closing = True
            asyncio.get_running_loop().call_soon(self.lost, error)

    def lost(self, error):
        protocol, self.protocol = self.protocol, None
        protocol.connection_lost(error)

    def is_closing(self):
        return self.closing

    def get_extra_info(self, name, default=None):
        return default

    def set_protocol(self, protocol):
        self.protocol = protocol

    def get_protocol(self):
        return self.protocol


class Kept(Connection):
    """Keeps what it is given, and holds its transport to its word: nothing comes while reading is paused."""

    def __init__(self, endpoint):
        super().__init__(endpoint)
        self.received = b""
        self.wants = True
        self.ended = False
        self.lost = []
        self.inside = False

    def data_received(self, data):
        assert self.wants, "data while reading was paused"
        assert not self.inside, "data within data"
        assert not self.ended
        assert not self.lost
        assert not self.closing
        assert type(data) is bytes
        self.received += data

    def eof_received(self):
        self.ended = True
        return True

    def pause(self):
        self.wants = False
        self.transport.pause_reading()

    def resume(self):
        self.inside = self.wants = True
        self.transport.resume_reading()
        self.inside = False

    def pause_writing(self):
        assert not self.write_paused
        self.write_paused = True

    def resume_writing(self):
        assert self.write_paused
        self.write_paused = False

    def closed(self, error):
        self.lost.append(error)


class World:
    def __init__(self):
        ports = Ports(Clock(lambda: 1_000_000), random.Random(7), None)
        self.faults = FaultSet("n", ports, EventLog("n", NodeLog("n"), ports.clock.wall))
        self.listener = Listener("x", Address("127.0.0.1", 0), Kept, faults=self.faults)

    def open(self):
        connection = Kept(self.listener)
        wire = Wire(connection)
        connection.connection_made(wire)
        return connection, wire


async def settle():
    """Let everything happen that would happen in the next ten virtual hours."""
    await asyncio.sleep(36_000)


def run(main):
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


faults = st.one_of(
    st.fixed_dictionaries({"kind": st.just("delay"), "ms": st.integers(0, 5000), "jitter_ms": st.integers(0, 5000)}),
    st.fixed_dictionaries({"kind": st.just("bandwidth"), "bytes_per_s": st.sampled_from([1, 7, 1000, 10**6])}),
    st.fixed_dictionaries({"kind": st.just("drop"), "probability": st.sampled_from([0.1, 0.5, 1])}),
    st.fixed_dictionaries({"kind": st.just("partition"), "probability": st.sampled_from([0.5, 1])}),
    st.fixed_dictionaries({"kind": st.just("hang"), "after_bytes": st.integers(0, 500)}),
)
extras = st.fixed_dictionaries(
    {"direction": st.sampled_from(["in", "out", "both"])},
    optional={"times": st.integers(1, 3), "duration": st.integers(1, 3000), "at": st.integers(1, 3000)},
)
steps = st.one_of(
    st.tuples(st.just("in"), st.integers(1, 300)),
    st.tuples(st.just("out"), st.integers(1, 300)),
    st.tuples(st.just("wait"), st.integers(0, 4000)),
    st.tuples(st.just("add"), st.builds(lambda fault, extra: fault | extra, faults, extras)),
    st.tuples(st.just("remove"), st.integers(0, 5)),
    st.tuples(st.sampled_from(["pause", "resume", "full", "empty", "eof"]), st.none()),
)


@settings(max_examples=200)
@given(st.lists(steps, max_size=40), st.randoms(use_true_random=False))
def test_no_schedule_of_faults_loses_doubles_or_reorders_bytes(schedule, rng):
    async def main():
        world = World()
        connection, wire = world.open()
        sent = {"in": b"", "out": b""}
        ended = False
        for what, how in schedule:
            if what == "in" and not ended:
                data = rng.randbytes(how)
                sent["in"] += data
                wire.arrive(data)
            elif what == "out":
                data = rng.randbytes(how)
                sent["out"] += data
                connection.transport.write(data)
            elif what == "wait":
                await asyncio.sleep(how / 1000)
            elif what == "add":
                world.faults.add(how)
            elif what == "remove" and world.faults.faults:
                world.faults.remove(list(world.faults.faults)[how % len(world.faults.faults)])
            elif what in ("pause", "resume"):
                getattr(connection, what)()
            elif what in ("full", "empty"):
                wire.push_back(what == "full")
            elif what == "eof" and not ended:
                ended = True
                wire.arrive(None)
            assert sent["in"].startswith(connection.received)
            assert sent["out"].startswith(wire.written)
            assert not (connection.ended and connection.received != sent["in"])
        world.faults.clear()
        connection.resume()
        wire.push_back(False)
        await settle()
        assert connection.received == sent["in"]
        assert wire.written == sent["out"]
        assert connection.ended == ended
        assert not connection.write_paused
        assert connection.lost == []
        assert connection.transport is wire
        assert wire.get_protocol() is connection

    run(main())


@settings(max_examples=100)
@given(st.lists(steps, max_size=25), st.sampled_from(["lose", "close", "abort"]), st.randoms(use_true_random=False))
def test_however_a_stream_under_faults_ends_its_end_comes_once(schedule, end, rng):
    async def main():
        world = World()
        connection, wire = world.open()
        out = b""
        for what, how in schedule:
            if what == "in":
                wire.arrive(rng.randbytes(how))
            elif what == "out":
                out += (data := rng.randbytes(how))
                connection.transport.write(data)
            elif what == "wait":
                await asyncio.sleep(how / 1000)
            elif what == "add":
                world.faults.add(how)
            elif what in ("full", "empty"):
                wire.push_back(what == "full")
        if end == "lose":
            wire.lose(ConnectionResetError())
        elif end == "close":
            connection.close()
        else:
            connection.abort("test")
        await asyncio.sleep(0)
        if end == "lose":  # the node finds out when it may, or gives up itself
            connection.abort("test") if rng.random() < 0.5 else world.faults.clear()
        world.faults.clear()
        wire.push_back(False)
        await settle()
        assert len(connection.lost) == 1
        assert world.listener.connections == {}
        assert (world.faults._shims, world.faults._draws) == ({}, {})
        if end == "close":
            assert wire.written == out

    run(main())


@settings(max_examples=50)
@given(st.integers(0, 200), st.sampled_from(["in", "out"]), st.lists(st.integers(1, 90), min_size=1, max_size=6))
def test_reset_lets_exactly_so_many_bytes_pass(after, direction, sizes):
    async def main():
        world = World()
        connection, wire = world.open()
        world.faults.add({"kind": "reset", "after_bytes": after + 1, "direction": direction})
        sent = b""
        for size in sizes:
            data = bytes(range(size))
            if not connection.closing:
                sent += data
                wire.arrive(data) if direction == "in" else connection.transport.write(data)
        await asyncio.sleep(0.001)
        passed = connection.received if direction == "in" else wire.written
        assert passed == sent[: after + 1]
        assert bool(connection.lost) == (len(sent) > after + 1)

    run(main())


def test_a_lost_peer_behind_a_partition_is_noticed_when_it_heals():
    async def main():
        world = World()
        connection, wire = world.open()
        world.faults.add({"kind": "partition"})
        wire.arrive(b"last words")
        wire.lose(ConnectionResetError())
        await settle()
        assert (connection.received, connection.lost) == (b"", [])
        world.faults.clear()
        await settle()
        assert connection.received == b"last words"
        assert [type(error) for error in connection.lost] == [ConnectionResetError]

    run(main())


def test_delays_that_have_fired_often_enough_still_delay():
    async def main():
        world = World()
        connection, wire = world.open()
        loop = asyncio.get_running_loop()
        world.faults.add({"kind": "delay", "ms": 1000, "times": 2, "direction": "in"})
        wire.arrive(b"a")
        wire.arrive(b"b")
        await asyncio.sleep(0.999)
        assert (connection.received, world.faults.faults) == (b"", {})
        started_s = loop.time()
        while connection.received != b"ab":
            await asyncio.sleep(0.0001)
        assert 0.0004 < loop.time() - started_s < 0.002

    run(main())


def test_bandwidth_is_exact_also_for_one_large_write():
    async def main():
        world = World()
        connection, wire = world.open()
        loop = asyncio.get_running_loop()
        fault = world.faults.add({"kind": "bandwidth", "bytes_per_s": 1000, "direction": "out"})
        started_s = loop.time()
        connection.transport.write(bytes(10_000))
        await asyncio.sleep(5.001)
        assert len(wire.written) == 5000
        while len(wire.written) < 10_000:
            await asyncio.sleep(0.001)
        assert abs(loop.time() - started_s - 10) < 0.01
        await asyncio.sleep(100)  # an idle line saves nothing up
        connection.transport.write(bytes(500))
        await asyncio.sleep(0.26)
        assert len(wire.written) == 10_250
        (listed,) = world.faults.listed()
        assert (listed["id"], listed["fired"]) == (fault, 1)

    run(main())


def test_hangs_that_have_fired_often_enough_keep_those_they_have():
    async def main():
        world = World()
        world.faults.add({"kind": "hang", "times": 2})
        streams = [world.open() for _ in range(4)]
        for _, wire in streams:
            wire.arrive(b"x")
        await settle()
        assert [connection.received for connection, _ in streams] == [b"", b"", b"x", b"x"]
        world.faults.add({"kind": "delay", "ms": 1})  # looks at every connection again
        await settle()
        assert [connection.received for connection, _ in streams] == [b"", b"", b"x", b"x"]
        world.faults.clear()
        await settle()
        assert [connection.received for connection, _ in streams] == [b"x"] * 4

    run(main())


def test_what_holds_a_connection_is_drawn_once_for_it():
    async def main():
        world = World()
        streams = [world.open() for _ in range(200)]
        world.faults.add({"kind": "partition", "probability": 0.5, "seed": 1, "direction": "out"})
        held = [connection.transport is not wire for connection, wire in streams]
        assert 60 < sum(held) < 140
        for _ in range(5):
            world.faults.remove(world.faults.add({"kind": "delay", "ms": 1}))
        await settle()
        assert [connection.transport is not wire for connection, wire in streams] == held

    run(main())


def test_a_writer_and_a_sender_meet_back_pressure():
    async def main():
        world = World()
        connection, wire = world.open()
        world.faults.add({"kind": "partition"})
        for _ in range(40):
            wire.arrive(bytes(100_000))
            if not connection.write_paused:
                connection.transport.write(bytes(100_000))
        assert PIPE_LIMIT_BYTES < connection.transport.get_write_buffer_size() <= PIPE_LIMIT_BYTES + 100_000
        assert connection.transport.incoming.size <= PIPE_LIMIT_BYTES + 100_000
        assert not wire.reading
        world.faults.clear()
        await settle()
        assert len(connection.received) == 4_000_000
        assert wire.reading
        assert not connection.write_paused

    run(main())


def test_the_end_of_a_shim_leaves_nothing_for_the_garbage_collector():
    async def main():
        world = World()
        gone = []
        gc.collect()
        gc.disable()
        try:
            for healed in (True, False):
                connection, wire = world.open()
                world.faults.add({"kind": "delay", "ms": 1})
                wire.arrive(b"x")
                gone.append(weakref.ref(connection.transport))
                if healed:
                    world.faults.clear()
                    await settle()
                wire.lose(None)
                await settle()
                world.faults.clear()
                gone.append(weakref.ref(connection))
                del connection, wire
                await settle()
            assert [each() for each in gone] == [None] * 4
        finally:
            gc.enable()

    run(main())
