"""redis-py's locks and registered scripts, unmodified, against a cache with Lua."""

import asyncio
import threading

import pytest
import redis
from redis.asyncio import Redis as AsyncRedis

pytest.importorskip("lupa")


@pytest.fixture
def url(minidist_cache):
    return minidist_cache.url


def test_a_lock_keeps_others_out_and_is_released_by_its_owner_only(url):
    client = redis.Redis.from_url(url)
    lock = client.lock("job", timeout=60)
    assert lock.acquire(blocking=False)
    other = client.lock("job", timeout=60)
    assert not other.acquire(blocking=False)
    with pytest.raises(redis.exceptions.LockError):
        other.release()
    assert lock.extend(30)
    assert 30_000 < client.pttl("job") <= 90_000
    assert lock.reacquire()
    lock.release()
    assert other.acquire(blocking=False)


def test_a_lock_is_taken_by_one_thread_at_a_time(url):
    client = redis.Redis.from_url(url)
    inside, most = [0], [0]

    def work() -> None:
        for _ in range(5):
            with client.lock("job", timeout=60, sleep=0.001):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]


@pytest.mark.parametrize("protocol", [2, 3])
def test_a_registered_script_is_loaded_when_it_is_missing(url, protocol):
    client = redis.Redis.from_url(url, protocol=protocol)
    double = client.register_script("return redis.call('INCRBY', KEYS[1], ARGV[1] * 2)")
    assert double(keys=["n"], args=[4]) == 8
    client.script_flush()
    assert double(keys=["n"], args=[4]) == 16
    with client.pipeline() as pipe:
        double(keys=["n"], args=[1], client=pipe)
        pipe.get("n")
        assert pipe.execute() == [18, b"18"]


async def test_locks_of_asyncio(url):
    async with AsyncRedis.from_url(url) as client:
        taken = []

        async def work(name: int) -> None:
            async with client.lock("job", timeout=60, sleep=0.001):
                taken.append(name)
                await asyncio.sleep(0)
                taken.append(name)

        await asyncio.gather(*[work(name) for name in range(5)])
        assert all(taken[at] == taken[at + 1] for at in range(0, 10, 2))
