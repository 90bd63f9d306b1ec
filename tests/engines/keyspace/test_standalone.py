"""A node that stands alone: what it says it has saved, waits that only their time ends, DEBUG ERROR."""


def test_saving_moves_lastsave(world, client):
    world.service.started_ms = world.now_ms
    assert client.show("LASTSAVE") == "1700000000"
    world.wait(5000)
    assert client.show("LASTSAVE") == "1700000000"
    assert client.show("SAVE") == "OK"
    assert client.show("LASTSAVE") == "1700000005"
    world.wait(5000)
    assert client.show("BGSAVE", "SCHEDULE") == "Background saving started"
    assert client.show("LASTSAVE") == "1700000010"
    assert client.show("BGREWRITEAOF") == "Background append only file rewriting started"


def test_wait_for_replicas_ends_with_its_time(world, client):
    assert client.send("WAIT", 1, 1000) == b""
    assert client.session.wait is not None
    world.wait(1000)
    assert client.session.wait is None
    assert world.service.outbox[-1].reply == b":0\r\n"


def test_waitaof(world, client):
    assert client.show("WAITAOF", 0, 0, 0) == "[0, 0]"
    assert client.show("WAITAOF", 1, 0, 0) == (
        "!ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled."
    )
    assert client.show("WAITAOF", 2, 0, 0) == "!ERR value is out of range, value must between 0 and 1"
    assert client.show("WAITAOF", 0, "x", 0) == "!ERR value is out of range, must be positive"
    assert client.show("WAITAOF", 0, 0, -1) == "!ERR timeout is negative"
    assert client.send("WAITAOF", 0, 1, 10) == b""
    world.wait(10)
    assert world.service.outbox[-1].reply == b"*2\r\n:0\r\n:0\r\n"


def test_it_follows_nobody(client):
    assert client.show("REPLICAOF", "host", 6379).startswith("!ERR this node does not replicate others")


def test_debug_error_answers_its_text(client):
    assert client.show("DEBUG", "ERROR", "LOADING two\r\nlines") == "!LOADING two  lines"


def test_what_the_node_says_of_itself(client):
    assert client.show("LOLWUT") == '"Redis ver. 7.2.4\\n"'
    assert client.show("MEMORY", "MALLOC-STATS") == '"Stats not supported for the current allocator"'


def test_shutdown(world, client):
    refused = "!ERR this node shares its process with others, which SHUTDOWN would end"
    assert client.show("SHUTDOWN", "NOSAVE") == refused
    ended = []
    world.service.end_process = lambda: ended.append(world.service.save_at_stop)
    assert client.send("SHUTDOWN", "NOSAVE", "NOW") == b""
    assert client.session.ended
    assert ended == [False]
