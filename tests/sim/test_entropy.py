"""Time, chance and the fence: what code on a host is given, and what it cannot get round."""

import asyncio
import concurrent.futures
import datetime
import importlib
import logging
import os
import queue
import random
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from datetime import date
from datetime import datetime as aliased_datetime
from pathlib import Path
from random import randint as aliased_randint
from time import monotonic as aliased_monotonic
from time import time as aliased_time

import pytest

from minidist.sim.errors import LeakError
from minidist.sim.world import World

BEGINNING = datetime.datetime(2001, 9, 9, 1, 46, 40, tzinfo=datetime.UTC)


def on_host(function, seed=1, name="host", after_s=100.0):
    """What a function gives as code of a host, `after_s` seconds into the run."""

    async def main():
        await asyncio.sleep(after_s)
        return function()

    with World(seed) as world:
        return world.run(world.host(name).start(main()))


# --- time -------------------------------------------------------------------------------------------------------------


def test_clocks_are_the_hosts():
    def look():
        return time.time(), time.time_ns(), time.monotonic(), time.perf_counter_ns(), time.process_time()

    assert on_host(look) == (1_000_000_100, 1_000_000_100 * 10**9, 100, 100 * 10**9, 100)
    assert time.time() > 1_700_000_000


def test_calendars():
    now = BEGINNING + datetime.timedelta(seconds=100)
    assert on_host(lambda: datetime.datetime.now(datetime.UTC)) == now
    assert on_host(lambda: aliased_datetime.now(datetime.UTC)) == now
    assert on_host(lambda: date.today()) == datetime.date.fromtimestamp(now.timestamp())
    assert on_host(lambda: datetime.datetime.today()) == datetime.datetime.fromtimestamp(now.timestamp())
    assert on_host(lambda: time.gmtime()[:6]) == now.timetuple()[:6]
    assert on_host(lambda: time.gmtime(0)[0]) == 1970
    assert on_host(lambda: time.ctime()) == time.ctime(now.timestamp())


def test_a_replaced_calendar_is_no_other_type():
    def look():
        moment = datetime.datetime.now()
        made = datetime.datetime(2020, 1, 2)
        parsed = datetime.datetime.fromisoformat("2020-01-02")
        assert isinstance(moment, datetime.datetime)
        assert isinstance(BEGINNING, datetime.datetime)
        assert isinstance(BEGINNING, datetime.date)
        assert not isinstance("", datetime.date)
        assert issubclass(datetime.datetime, datetime.date)
        assert made == parsed == datetime.datetime.strptime("2020-01-02", "%Y-%m-%d")

        class Own(datetime.datetime):
            pass

        assert isinstance(Own(2020, 1, 2), Own)
        assert not isinstance(moment, Own)
        return moment, made, parsed

    assert {type(each) for each in on_host(look)} == {datetime.datetime}


def test_names_that_were_bound_before_are_replaced_too():
    assert on_host(lambda: (aliased_time(), aliased_monotonic())) == (1_000_000_100, 100)
    assert on_host(lambda: aliased_randint(0, 10**9)) == on_host(lambda: aliased_randint(0, 10**9))
    assert abs(aliased_time() - time.time()) < 100


def test_each_host_has_its_wall_clock(world):
    a, b = world.host("a"), world.host("b")
    b.wall_offset_s = 50
    assert world.run(read(a)) == 1_000_000_000
    assert world.run(read(b)) == 1_000_000_050


async def read(host):
    async def look():
        return time.time()

    return await host.start(look())


def test_code_of_the_world_has_real_time(world):
    async def main():
        return time.time()

    assert world.run(main()) > 1_700_000_000


def test_log_records_carry_simulated_time():
    def look():
        return logging.makeLogRecord({}).created

    assert on_host(look) == 1_000_000_100


# --- chance -----------------------------------------------------------------------------------------------------------


def draw():
    random.seed()
    first = random.random()
    random.seed(5)
    return [
        first, random.random(), random.Random().random(), random.Random(3).random(), random.SystemRandom().random(),
        os.urandom(8), uuid.uuid4(), uuid.uuid1(), secrets.token_hex(8), secrets.randbelow(1 << 60), uuid.getnode(),
        random.choice(range(1 << 30)), random.getstate(),
    ]  # fmt: skip


def test_chance_comes_from_the_seed_and_the_host():
    assert on_host(draw) == on_host(draw)
    for other in (on_host(draw, seed=2), on_host(draw, name="other")):
        ours = on_host(draw)
        same = [index for index, value in enumerate(ours) if other[index] == value]
        assert set(same) <= {1, 3, 10, 11, 12}  # what was seeded by hand, and the node of the first host
    state = random.getstate()
    on_host(draw)
    assert random.getstate() == state


def test_uuid1_tells_the_time():
    made = on_host(lambda: uuid.uuid1())
    assert made.version == 1
    ticks = datetime.timedelta(microseconds=made.time // 10)
    assert datetime.datetime(1582, 10, 15, tzinfo=datetime.UTC) + ticks == BEGINNING + datetime.timedelta(seconds=100)
    assert on_host(lambda: len({uuid.uuid1() for _ in range(50)})) > 48


def test_who_we_are():
    assert on_host(lambda: (os.getpid(), socket.gethostname())) == (1001, "host")


# --- the fence --------------------------------------------------------------------------------------------------------

LEAKS = {
    "a thread": lambda: threading.Thread(target=print).start(),
    "a thread ": lambda: concurrent.futures.ThreadPoolExecutor(1).submit(print),
    "waiting for another thread": lambda: queue.Queue().get(timeout=1),
    "time.sleep": lambda: time.sleep(0),
    "a subprocess": lambda: subprocess.Popen(["true"]),
    "a subprocess ": lambda: os.system("true"),
    "a real socket": socket.socket,
    "a real socket ": lambda: socket.create_connection(("127.0.0.1", 1)),
    "a real file": lambda: open("/etc/passwd"),  # noqa: SIM115
    "a real file ": lambda: open("/tmp/x.py", "w"),  # noqa: SIM115
    "a real file  ": tempfile.mkstemp,
    "a signal handler": lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL),
    "a signal to a process": lambda: os.kill(os.getpid(), 0),
}


@pytest.mark.parametrize("what", LEAKS)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_leaks(what):
    with pytest.raises(LeakError, match=rf"^{what.strip()}.* has no place in a simulation") as caught:
        on_host(LEAKS[what])
    assert "host host at 100.000000 s" in str(caught.value)
    assert "test_entropy.py" in str(caught.value)


LOOP_LEAKS = {
    "add_reader": lambda loop: loop.add_reader(0, print),
    "a signal handler": lambda loop: loop.add_signal_handler(1, print),
    "a subprocess": lambda loop: asyncio.create_subprocess_exec("true"),
    "a Unix socket": lambda loop: asyncio.open_unix_connection("/tmp/x"),
    "a Unix socket ": lambda loop: loop.create_unix_server(asyncio.Protocol, "/tmp/x"),
    "TLS": lambda loop: asyncio.open_connection("host", 1, ssl=True),
    "TLS ": lambda loop: loop.start_tls(None, None, None),
    "a pipe": lambda loop: loop.connect_read_pipe(None, None),
    "a raw socket": lambda loop: loop.sock_connect(None, None),
    "sendfile": lambda loop: loop.sendfile(None, None),
    "a real socket": lambda loop: loop.create_connection(asyncio.Protocol, sock=object()),
}


@pytest.mark.parametrize("what", LOOP_LEAKS)
def test_leaks_through_the_loop(what, world):
    async def main():
        result = LOOP_LEAKS[what](asyncio.get_running_loop())
        if asyncio.iscoroutine(result):
            await result

    with pytest.raises(LeakError, match=what.strip()):
        world.run(world.host("a").start(main()))


def test_a_leak_that_is_swallowed_still_fails_the_run(world):
    async def main():
        try:
            time.sleep(1)
        except Exception:
            return "fine"

    with pytest.raises(LeakError, match=r"^time\.sleep has no place in a simulation \(host a at 0\.000000 s\)"):
        world.run(world.host("a").start(main()))
    assert [(leak.what, leak.host) for leak in world.leaks] == [("time.sleep", "a")]
    assert "test_entropy.py" in world.leaks[0].stack


def test_what_leaks_in_a_thread_function_is_found(world):
    async def main():
        await asyncio.to_thread(time.sleep, 1)

    with pytest.raises(LeakError):
        world.run(world.host("a").start(main()))


def test_code_may_import_and_read_sources(tmp_path, monkeypatch):
    (tmp_path / "late_module.py").write_text("import json.tool\nfrom time import time\nwhen = time()\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    def look():
        import email.mime.text  # noqa: F401
        import wave  # noqa: F401

        module = importlib.import_module("late_module")
        source = Path(module.__file__).read_text()
        return module, source

    module, source = on_host(look)
    assert module.when == 1_000_000_100
    assert "import json" in source
    assert module.time() > 1_700_000_000  # outside of any world it is the real one again
    assert on_host(module.time, after_s=7) == 1_000_000_007  # and in the next world that world's
    del sys.modules["late_module"]


def test_everything_is_put_back():
    names = [(time, "time"), (time, "sleep"), (random, "random"), (os, "urandom"), (socket, "getaddrinfo")]
    names += [(datetime, "datetime"), (threading.Thread, "start"), (random.Random, "seed")]
    before = [getattr(owner, name) for owner, name in names]
    with pytest.raises(ZeroDivisionError):
        on_host(lambda: 1 / 0)
    assert [getattr(owner, name) for owner, name in names] == before
    assert aliased_time is time.time
    assert aliased_datetime is datetime.datetime


def test_a_world_may_run_within_another():
    def inner():
        return on_host(lambda: time.time(), after_s=5)

    assert inner() == 1_000_000_005
    with World(1) as world:

        async def main():
            return inner(), time.time()

        got = world.run(main())
    assert got[0] == 1_000_000_005
    assert got[1] > 1_700_000_000
