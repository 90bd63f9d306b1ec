"""S3-FIFO evicts what the paper's algorithm evicts, key by key, and its queues never grow without bound."""

import random
import tracemalloc
from collections import deque

from hypothesis import given, settings
from hypothesis import strategies as st

from minidist.engines.keyspace import events
from minidist.engines.keyspace.eviction import Policy
from minidist.engines.keyspace.s3fifo import BLOCK_WORDS, Queue

VALUE = b"x" * 500


class Plain:
    """The algorithm with lists, as the paper tells it. Ghosts are kept in two generations."""

    def __init__(self):
        self.small, self.main = deque(), deque()
        self.uses: dict[str, int] = {}
        self.young, self.old = set(), set()

    def join(self, key):
        self.uses[key] = 0
        (self.main if key in self.young | self.old else self.small).append(key)
        self.young.discard(key)
        self.old.discard(key)

    def use(self, key):
        if key in self.uses:
            self.uses[key] = min(self.uses[key] + 1, 3)

    def evict(self):
        while True:
            from_small = 10 * len(self.small) >= len(self.small) + len(self.main)
            key = (self.small if from_small else self.main).popleft()
            if from_small and self.uses[key] < 2:
                if len(self.young) * 20 >= 9 * (len(self.small) + len(self.main)):
                    self.old, self.young = self.young, set()
                self.young.add(key)
            elif from_small:
                self.uses[key] = 0
                self.main.append(key)
                continue
            elif self.uses[key]:
                self.uses[key] -= 1
                self.main.append(key)
                continue
            del self.uses[key]
            return key


class Cache:
    """A world with room for so many keys, and the plain algorithm beside it."""

    def __init__(self, world, keys):
        self.world, self.plain, self.gone = world, Plain(), 0
        self.client = world.client()
        world.service.evict_by(Policy.ALLKEYS_S3_FIFO)
        for number in range(keys):
            self.client.send("SET", f"first:{number}", VALUE)
            self.plain.join(f"first:{number}")
        world.keyspace.limit(world.keyspace.used_bytes)
        world.keyspace.notified = events.EVICTED
        world.keyspace.on_event = self._evicted

    def _evicted(self, number, kind, event, key):
        assert self.plain.evict() == key.decode()
        self.gone += 1

    def ask(self, key):
        """Cache-aside: get it, or set it."""
        found = self.client.show("GET", key) != "nil"
        self.plain.use(key)
        if not found:
            self.client.send("SET", key, VALUE)
            self.plain.join(key)
        return found


@given(st.integers(0, 2**32), st.integers(20, 60))
@settings(max_examples=30, deadline=None)
def test_evicts_what_the_paper_evicts(world_type, seed, keys):
    cache, rng = Cache(world_type(), keys), random.Random(seed)
    for _ in range(600):
        cache.ask(f"key:{min(int(rng.paretovariate(0.7)), 3 * keys)}")
    assert cache.gone > 50


def test_a_scan_leaves_what_is_used_alone(world):
    cache = Cache(world, 300)
    hot = [f"hot:{number}" for number in range(150)]
    for _ in range(6):
        for key in hot:
            cache.ask(key)
    for number in range(2000):
        cache.ask(f"once:{number}")
    assert all(cache.client.show("EXISTS", key) == "1" for key in hot)


def test_keys_that_were_there_before_go_as_well(world, client):
    for number in range(3000):
        client.send("SET", f"old:{number}", VALUE)
    world.service.evict_by(Policy.ALLKEYS_S3_FIFO)
    world.keyspace.limit(world.keyspace.used_bytes)
    for number in range(3000):
        client.send("SET", f"new:{number}", VALUE)
    there = [number for number in range(3000) if client.show("EXISTS", f"old:{number}") == "1"]
    assert len(there) < 2900
    assert world.keyspace.evicted_keys > 2900
    world.service.evict_by(Policy.ALLKEYS_LFU)
    world.service.evict_by(Policy.ALLKEYS_S3_FIFO)
    for number in range(3000):
        client.send("SET", f"newer:{number}", VALUE)
    assert world.keyspace.used_bytes < world.keyspace.limit_bytes + 2000


def test_the_account_is_exact_when_all_is_gone(world, client):
    empty_bytes = world.keyspace.used_bytes
    cache = Cache(world, 200)
    for number in range(1000):
        cache.ask(f"key:{number % 250}")
    world.keyspace.notified = 0
    world.service.evict_by(Policy.ALLKEYS_LRU)
    for key in [*(f"key:{number}" for number in range(250)), *(f"first:{number}" for number in range(200))]:
        client.send("DEL", key)
    assert world.keyspace.used_bytes == empty_bytes
    assert world.keyspace.count == 0


def test_flush_and_swap_take_the_queues_along(world, client):
    world.service.evict_by(Policy.ALLKEYS_S3_FIFO)
    empty_bytes = world.keyspace.used_bytes
    for number in range(100):
        client.send("SET", f"key:{number}", VALUE)
    one, two = world.keyspace.databases[:2]
    queues = one.queues
    client.send("SWAPDB", "0", "1")
    assert two.queues is queues
    assert queues.small.length == 100
    client.send("FLUSHALL")
    while world.keyspace.garbage_keys:
        world.keyspace.free_step()
    assert two.queues is not queues
    assert world.keyspace.used_bytes == empty_bytes


def test_keys_that_come_and_go_do_not_pile_up(world, client):
    world.service.evict_by(Policy.ALLKEYS_S3_FIFO)
    client.send("SET", "stays", VALUE)
    for number in range(20_000):
        client.send("SET", f"key:{number}", "v")
        client.send("DEL", f"key:{number}")
    queues = world.keyspace.databases[0].queues
    assert queues.small.length + queues.main.length < 4 * BLOCK_WORDS


def test_values_that_are_deleted_do_not_wait_for_their_turn(world, client):
    """The queues know the keys for a while longer, and would keep what nobody accounts for any more."""
    world.service.evict_by(Policy.ALLKEYS_S3_FIFO)
    tracemalloc.start()
    try:
        for number in range(100):
            client.send("SET", f"key:{number}", b"x" * 100_000)
        for number in range(100):
            client.send("DEL", f"key:{number}")
        assert tracemalloc.get_traced_memory()[0] < 1_000_000
    finally:
        tracemalloc.stop()


def test_no_step_is_long(world, client):
    """All keys used as often as counts: the search goes round, but not for ever."""
    for number in range(5000):
        client.send("SET", f"key:{number}", VALUE)
    world.service.evict_by(Policy.ALLKEYS_S3_FIFO)
    database = world.keyspace.databases[0]
    queues = database.queues
    while queues._fill_from is not None:
        queues._fill(database)
    queues._count(database)
    for _ in range(3):
        for number in range(5000):
            client.send("GET", f"key:{number}")
    world.keyspace.limit(world.keyspace.used_bytes - 100)
    assert client.show("SET", "more", VALUE) == "OK"
    assert world.keyspace.evicted_keys == 1
    assert queues.main.length == 5000  # one was taken by a sample, and stands there still


@given(st.lists(st.sampled_from(["push", "pop", "sweep"]), max_size=60), st.integers(0, 2**32))
def test_a_queue_is_first_in_first_out(moves, seed):
    rng, queue, model, number = random.Random(seed), Queue(), [], 0
    for move in moves:
        if move == "push":
            for _ in range(rng.randrange(400)):
                pair = (b"%d" % number, number)
                queue.push(*pair)
                model.append(pair)
                number += 1
        elif move == "pop":
            for _ in range(min(rng.randrange(400), queue.length)):
                assert queue.pop() == model.pop(0)
        else:
            for _ in range(10):
                queue.sweep(lambda key, entry: entry % 3 > 0)
            left = [pair for block in queue._blocks for pair in block if pair is not None]
            model = list(zip(left[::2], left[1::2], strict=True))
            assert all(pair in model for pair in model if pair[1] % 3)
        assert queue.length == len(model)
    while model:
        assert queue.pop() == model.pop(0)
