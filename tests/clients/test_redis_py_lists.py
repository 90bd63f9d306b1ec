"""redis-py's list commands against a daemon: as queues between threads, in both protocols, and SORT."""

import threading
from collections.abc import Iterator

import pytest
import redis


@pytest.fixture(params=[2, 3])
def r(request, port) -> Iterator[redis.Redis]:
    with redis.Redis(port=port, decode_responses=True, protocol=request.param) as client:
        client.flushall()
        yield client


def test_commands(r):
    assert r.rpush("l", "a", "b", "c") == 3
    assert r.lpush("l", "z") == 4
    assert r.lrange("l", 0, -1) == ["z", "a", "b", "c"]
    assert (r.lpop("l"), r.rpop("l"), r.lpop("l", 5), r.lpop("l"), r.lpop("l", 5)) == ("z", "c", ["a", "b"], None, None)
    r.rpush("l", *"abcabc")
    assert (r.lpos("l", "b"), r.lpos("l", "b", rank=-1), r.lpos("l", "b", count=0)) == (1, 4, [1, 4])
    assert (r.linsert("l", "BEFORE", "b", "x"), r.lset("l", 0, "A"), r.lindex("l", 1)) == (7, True, "x")
    assert (r.lrem("l", 1, "x"), r.ltrim("l", 0, 2), r.llen("l")) == (1, True, 3)
    assert (r.lmove("l", "m"), r.rpoplpush("l", "m"), r.lrange("m", 0, -1)) == ("A", "c", ["c", "A"])
    assert r.lmpop(2, "nope", "m", direction="LEFT", count=5) == ["m", ["c", "A"]]
    assert r.lmpop(1, "nope", direction="LEFT") is None


def test_waiting_in_vain(r):
    assert r.blpop(["a", "b"], timeout=0.01) is None
    assert r.brpoplpush("a", "b", timeout=0.01) is None
    assert r.blmove("a", "b", 0.01) is None
    assert r.blmpop(0.01, 1, "a", direction="LEFT") is None


def test_a_queue_between_threads(r):
    """Three threads work while another brings jobs: everything is done once, and is then in the list of done jobs."""

    def work():
        while (job := r.blmove("jobs", "done", 10, "LEFT", "RIGHT")) != "stop":
            taken.append(job)

    taken: list[str] = []
    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(200):
        r.rpush("jobs", f"job {number}")
    r.rpush("jobs", *["stop"] * 3)
    for thread in threads:
        thread.join(timeout=20)
        assert not thread.is_alive()
    assert sorted(taken) == sorted(f"job {number}" for number in range(200))
    assert r.lrange("done", 0, -1) == [f"job {number}" for number in range(200)] + ["stop"] * 3


def test_sort(r):
    r.rpush("ids", 3, 1, 2)
    r.mset({"name:1": "one", "name:2": "two", "name:3": "three"})
    r.hset("user:1", "age", 40)
    r.hset("user:2", "age", 30)
    r.hset("user:3", "age", 20)
    assert r.sort("ids") == ["1", "2", "3"]
    assert r.sort("ids", by="user:*->age", get=["#", "name:*"], groups=True) == [
        ("3", "three"),
        ("2", "two"),
        ("1", "one"),
    ]
    assert r.sort("ids", desc=True, start=0, num=2, store="best") == 2
    assert r.lrange("best", 0, -1) == ["3", "2"]
    assert r.sort_ro("ids", alpha=True, get="name:*") == ["one", "two", "three"]
