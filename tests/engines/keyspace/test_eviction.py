"""The memory limit: never passed by more than one value, and the right keys go."""

import random

import pytest

from minidist.engines.keyspace.eviction import Policy
from minidist.engines.keyspace.outputs import Signal
from minidist.engines.keyspace.tables import NEVER

LIMIT = 2_000_000


def fill(world, client, count: int, value: bytes, **options: str) -> None:
    for number in range(count):
        assert client.send("SET", f"key:{number}", value) == b"+OK\r\n"
        assert world.keyspace.used_bytes <= LIMIT + len(value) + 1000


def limited(world, policy: Policy) -> None:
    world.keyspace.limit(LIMIT)
    world.service.evict_by(policy)


def test_noeviction_refuses_writes_and_serves_reads(world, client):
    limited(world, Policy.NOEVICTION)
    number = 0
    while client.send("SET", number, b"x" * 1000) == b"+OK\r\n":
        number += 1
    assert client.show("SET", "more", "x") == "!OOM command not allowed when used memory > 'maxmemory'."
    assert client.show("INCR", "counter") == "!OOM command not allowed when used memory > 'maxmemory'."
    assert client.show("XGROUP", "CREATE", "s", "g", "0", "MKSTREAM").startswith("!OOM")
    assert client.show("GET", "0").startswith('"xxx')
    assert client.show("EXPIRE", "0", "100") == "1"
    assert world.keyspace.used_bytes <= LIMIT + 2000
    assert client.show("DEL", "0", "1", "2") == "3"
    assert client.show("SET", "more", "x") == "OK"


def test_a_transaction_that_needs_memory_is_refused(world, client):
    limited(world, Policy.NOEVICTION)
    client.send("SET", "big", b"x" * (LIMIT - 2000))
    client.send("MULTI")
    client.send("SET", "a", b"x" * 1000)
    client.send("GET", "a")
    other = world.client()
    other.send("SET", "more", b"x" * 2000)
    assert client.show("EXEC").startswith("!EXECABORT Transaction discarded because of: OOM command not allowed")
    client.send("MULTI")
    assert client.show("SET", "a", "1").startswith("!OOM")
    assert client.show("EXEC").startswith("!EXECABORT")


@pytest.mark.parametrize("policy", [Policy.ALLKEYS_LRU, Policy.ALLKEYS_RANDOM])
def test_room_is_made(world, client, policy):
    limited(world, policy)
    fill(world, client, 20_000, b"x" * 300)
    assert world.keyspace.evicted_keys > 10_000
    assert world.keyspace.used_bytes > 0.9 * LIMIT


def test_recently_used_keys_stay(world, client):
    limited(world, Policy.ALLKEYS_LRU)
    hot = [f"hot:{number}" for number in range(200)]
    for key in hot:
        client.send("SET", key, b"h" * 300)
    for number in range(20_000):
        world.now_ms += 1
        client.send("SET", f"cold:{number}", b"x" * 300)
        client.send("GET", hot[number % len(hot)])
    kept = sum(client.show("EXISTS", key) == "1" for key in hot)
    assert kept >= 195


def test_order_of_eviction_is_close_to_exact_lru(world, client):
    """Of keys never used again, the older half must be gone before the newer half."""
    limited(world, Policy.ALLKEYS_LRU)
    for number in range(12_000):
        world.now_ms += 1
        client.send("SET", f"{number}", b"x" * 300)
    there = [number for number in range(12_000) if client.show("EXISTS", number) == "1"]
    newest = set(range(12_000 - len(there), 12_000))
    assert len(newest & set(there)) > 0.9 * len(there)


def test_volatile_policies_spare_keys_without_a_lifetime(world, client):
    for policy in (Policy.VOLATILE_LRU, Policy.VOLATILE_RANDOM, Policy.VOLATILE_TTL):
        world.keyspace.limit_bytes = 1 << 62
        client.send("FLUSHALL")
        world.wait(0)
        limited(world, policy)
        for number in range(1000):
            client.send("SET", f"forever:{number}", b"x" * 300)
        for number in range(10_000):
            assert client.send("SET", f"timed:{number}", b"x" * 300, "EX", 1000 + number) == b"+OK\r\n"
        assert all(client.show("EXISTS", f"forever:{number}") == "1" for number in range(1000))


def test_volatile_policies_refuse_when_nothing_may_go(world, client):
    limited(world, Policy.VOLATILE_LRU)
    replies = {client.send("SET", number, b"x" * 300)[:4] for number in range(10_000)}
    assert replies == {b"+OK\r", b"-OOM"}


def test_the_shortest_lifetimes_go_first(world, client):
    limited(world, Policy.VOLATILE_TTL)
    order = list(range(12_000))
    random.Random(1).shuffle(order)
    for number in order:
        client.send("SET", number, b"x" * 300, "EX", 1000 + number)
    there = [number for number in range(12_000) if client.show("EXISTS", number) == "1"]
    assert sum(there) / len(there) > 7500


def test_few_large_values(world, client):
    limited(world, Policy.ALLKEYS_LRU)
    for number in range(50):
        client.send("SET", number, b"x" * 400_000)
        world.now_ms += 1
        assert world.keyspace.used_bytes <= LIMIT + 401_000
    assert [client.show("EXISTS", number) for number in range(46, 50)] == ["1"] * 4


def test_the_same_seed_evicts_the_same_keys(world):
    def left(seed: int) -> list[bytes]:
        again = type(world)(seed)
        limited(again, Policy.ALLKEYS_RANDOM)
        fill(again, again.client(), 8000, b"x" * 300)
        return [key for *_, table in again.keyspace.databases[0].filled() for key in table]

    assert left(1) == left(1)
    assert left(1) != left(2)


def test_all_databases_are_drawn_from(world, client):
    limited(world, Policy.ALLKEYS_LRU)
    client.send("SELECT", 3)
    fill(world, client, 3000, b"x" * 300)
    client.send("SELECT", 0)
    world.now_ms += 1000
    fill(world, client, 5000, b"x" * 300)
    assert world.keyspace.databases[3].count < 1000


def test_after_a_flush_writes_are_not_refused(world, client):
    limited(world, Policy.NOEVICTION)
    while client.send("INCR", world.keyspace.count) != b"":
        if world.keyspace.used_bytes > LIMIT:
            break
    client.send("FLUSHALL")
    assert client.show("SET", "a", "1") == "OK"
    assert world.keyspace.used_bytes <= LIMIT + 1000


def test_a_lowered_limit_is_reached_in_steps(world, client):
    world.keyspace.evictor.use(Policy.ALLKEYS_LRU)
    for number in range(5000):
        client.send("SET", number, b"x" * 300)
    world.keyspace.limit(200_000)
    assert world.keyspace.alarm_ms == 0
    world.service.wake(world.now_ms)
    assert 4000 < world.keyspace.count < 5000
    world.wait(0)
    assert world.keyspace.used_bytes <= 200_000
    assert world.keyspace.alarm_ms > world.now_ms


def test_policies_of_the_engine_and_of_the_option_agree():
    from typing import get_args

    from minidist.components.cache.config import EvictionPolicy

    assert sorted(get_args(EvictionPolicy)) == sorted(policy.value for policy in Policy)
    assert NEVER > 10**18


def used_often_then_flooded(world, client, policy: Policy) -> int:
    """How many of 100 keys that were used 50 times survive three times the memory of keys that are used twice."""
    limited(world, policy)
    for number in range(100):
        client.send("SET", f"often:{number}", b"h" * 300)
    for _ in range(50):
        world.now_ms += 100
        for number in range(100):
            client.send("GET", f"often:{number}")
    for number in range(15_000):
        world.now_ms += 1
        client.send("SET", f"flood:{number}", b"x" * 300)
        client.send("GET", f"flood:{number}")
    return sum(client.show("EXISTS", f"often:{number}") == "1" for number in range(100))


def test_lfu_keeps_what_is_used_often_where_lru_keeps_what_came_last(world_type):
    kept = {}
    for policy in (Policy.ALLKEYS_LFU, Policy.ALLKEYS_LRU):
        world = world_type()
        kept[policy] = used_often_then_flooded(world, world.client(), policy)
    assert kept[Policy.ALLKEYS_LFU] >= 95
    assert kept[Policy.ALLKEYS_LRU] <= 5


def test_the_counter_of_uses_is_logarithmic_and_fades(world, client):
    world.service.evict_by(Policy.ALLKEYS_LFU)
    client.send("SET", "k", "v")
    assert client.show("OBJECT", "FREQ", "k") == "5"
    seen = []
    for uses in (100, 1000, 10_000):
        for _ in range(uses):
            client.send("GET", "k")
        seen.append(int(client.show("OBJECT", "FREQ", "k")))
    assert 5 < seen[0] < seen[1] < seen[2] < 100
    world.wait(10 * 60_000)
    assert int(client.show("OBJECT", "FREQ", "k")) == seen[2] - 10
    assert client.show("OBJECT", "IDLETIME", "k").startswith("!ERR An LFU maxmemory policy is selected")
    world.service.evict_by(Policy.ALLKEYS_LRU)
    assert client.show("OBJECT", "FREQ", "k").startswith("!ERR An LFU maxmemory policy is not selected")
    assert client.show("OBJECT", "IDLETIME", "k") == "600"


def test_fifo_goes_by_age_whatever_is_used(world, client):
    limited(world, Policy.ALLKEYS_FIFO)
    for number in range(100):
        client.send("SET", f"old:{number}", b"x" * 300)
    for number in range(12_000):
        world.now_ms += 1
        client.send("SET", f"{number}", b"x" * 300)
        client.send("GET", f"old:{number % 100}")
    there = [number for number in range(12_000) if client.show("EXISTS", number) == "1"]
    newest = set(range(12_000 - len(there), 12_000))
    assert len(newest & set(there)) > 0.8 * len(there)
    assert sum(client.show("EXISTS", f"old:{number}") == "1" for number in range(100)) == 0


@pytest.mark.parametrize("policy", [each for each in Policy if each.volatile_only])
def test_volatile_policies_leave_keys_without_a_lifetime_alone(world, client, policy):
    limited(world, policy)
    for number in range(1000):
        client.send("SET", f"kept:{number}", b"x" * 300)
    for number in range(10_000):
        assert client.send("SET", f"{number}", b"x" * 300, "EX", 1000 + number) == b"+OK\r\n"
    assert all(client.show("EXISTS", f"kept:{number}") == "1" for number in range(1000))


def test_policies_can_be_switched_at_any_time(world, client):
    world.keyspace.limit(LIMIT)
    for number in range(30_000):
        if number % 1000 == 0:
            world.service.evict_by(list(Policy)[1:][number // 1000 % (len(Policy) - 1)])
        world.now_ms += 1
        client.send("SET", f"{number}", b"x" * 300, *(["EX", 500] if number % 2 else []))
        assert world.keyspace.used_bytes <= LIMIT + 1500


def test_a_write_waits_until_a_large_one_before_it_has_been_made_room_for(world, client):
    """One step evicts 200 keys at most; what is written is less than a value above the limit at any moment."""
    limited(world, Policy.ALLKEYS_LRU)
    fill(world, client, 8_000, b"x" * 100)
    large = b"y" * 200_000
    assert client.send("SET", "large:0", large) == b"+OK\r\n"
    waited = 0
    for number in range(1, 5):
        while (reply := client.send("SET", f"large:{number}", large)) == b"":
            waited += 1
            assert client.show("GET", "nothing") == "nil"  # who only reads need not wait
            world.service.outbox.clear()
            world.service.wake(world.now_ms)
        assert reply == b"+OK\r\n"
        assert world.keyspace.used_bytes <= LIMIT + len(large) + 1000
    assert waited
    assert Signal.RESUME in world.service.outbox or not world.service.short_of_room


def test_a_write_that_waits_is_refused_when_nothing_more_may_go(world, client):
    """What may go was not enough: whoever waits for the rest would wait for ever."""
    limited(world, Policy.VOLATILE_LRU)
    for number in range(1000):
        client.send("SET", f"volatile:{number}", "x", "EX", 1000)
    assert client.send("SET", "kept", b"y" * 2 * LIMIT) == b"+OK\r\n"
    world.service.outbox.clear()
    assert client.send("SET", "another", "x") == b""
    while world.keyspace.alarm_ms == 0:
        world.service.wake(world.now_ms)
    assert not world.service.short_of_room
    assert Signal.RESUME in world.service.outbox
    assert client.send("SET", "another", "x").startswith(b"-OOM")


def test_a_lowered_limit_is_reached_in_steps_for_which_writes_wait(world, client):
    """One step for each round of the loop, however many commands there are; who reads does not wait."""
    for number in range(10_000):
        client.send("SET", f"key:{number}", b"x" * 100)
    limited(world, Policy.ALLKEYS_LRU)
    world.keyspace.limit(LIMIT // 10)
    before = world.keyspace.evicted_keys
    for number in range(100):
        assert client.send("SET", f"new:{number}", b"x" * 100) == b""
        assert client.send("EXISTS", "key:1") in (b":0\r\n", b":1\r\n")
    assert world.keyspace.evicted_keys - before <= 200
    world.wait(1000)
    assert world.keyspace.used_bytes <= LIMIT // 10
    assert Signal.RESUME in world.service.outbox
    assert client.send("SET", "new", b"x" * 100) == b"+OK\r\n"


def test_nobody_waits_for_a_flush(world, client):
    limited(world, Policy.ALLKEYS_LRU)
    fill(world, client, 9_000, b"x" * 100)
    client.send("FLUSHALL")
    for number in range(50):
        assert client.send("SET", f"new:{number}", b"x" * 100) == b"+OK\r\n"
    assert world.keyspace.evicted_keys < 9_000
    world.wait(1000)
    assert world.keyspace.count == 50
