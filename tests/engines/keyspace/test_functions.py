"""What transcripts cannot say of functions: payloads exchanged with Redis, limits, what survives a new interpreter."""

from ast import literal_eval

import pytest

pytest.importorskip("lupa")

COUNTER = """#!lua name=counting
local count = 0
redis.register_function('count', function(keys, args) count = count + 1 return count end)
local kept = {}
redis.register_function('hoard', function(keys, args) while true do kept[#kept + 1] = {#kept} end end)
redis.register_function('spin', function(keys, args) while true do end end)
"""
STORE = "#!lua name=store\nredis.register_function{function_name='put', callback=function(keys, args) %s end%s}"


def put(flags: str = "", body: str = "return redis.call('SET', keys[1], args[1])") -> str:
    return STORE % (body, f", flags={{{flags}}}" if flags else "")


def test_payloads_go_to_a_real_server_and_back(client, redis_client):
    real = redis_client()
    real.show(b"FUNCTION", b"FLUSH")
    text = put() + " --" + "x" * 500
    client.send("FUNCTION", "LOAD", text)
    client.send("FUNCTION", "LOAD", COUNTER)
    ours = payload(client.send("FUNCTION", "DUMP"))
    assert real.show(b"FUNCTION", b"RESTORE", ours) == "OK"
    assert real.show(b"FCALL", b"put", b"1", b"k", b"v") == "OK"
    theirs = literal_eval("b" + real.show(b"FUNCTION", b"DUMP"))
    assert theirs != ours, "Redis compresses them"
    client.send("FUNCTION", "FLUSH")
    assert client.show("FUNCTION", "RESTORE", theirs) == "OK"
    assert client.show("FCALL", "put", 1, "k", "v") == "OK"
    assert "x" * 500 in client.show("FUNCTION", "LIST", "LIBRARYNAME", "store", "WITHCODE")


def payload(reply: bytes) -> bytes:
    return reply.partition(b"\r\n")[2][:-2]


def test_policies_of_restore(client):
    client.send("FUNCTION", "LOAD", put())
    dumped = payload(client.send("FUNCTION", "DUMP"))
    assert client.show("FUNCTION", "RESTORE", dumped) == "!ERR Library store already exists"
    client.send("FUNCTION", "LOAD", "REPLACE", put(body="return 'other'"))
    assert client.show("FUNCTION", "RESTORE", dumped, "REPLACE") == "OK"
    assert client.show("FCALL", "put", 1, "k", "v") == "OK"
    client.send("FUNCTION", "LOAD", COUNTER)
    assert client.show("FUNCTION", "RESTORE", dumped, "FLUSH") == "OK"
    assert client.show("FCALL", "count", 0) == "!ERR Function not found"
    client.send("FUNCTION", "FLUSH")
    client.send("FUNCTION", "LOAD", put().replace("name=store", "name=rival"))
    for policy in ("APPEND", "REPLACE"):
        assert client.show("FUNCTION", "RESTORE", dumped, policy) == "!ERR Function put already exists"
    assert "rival" in client.show("FUNCTION", "LIST"), "nothing has changed"


def test_damaged_payloads(client):
    client.send("FUNCTION", "LOAD", put())
    dumped = payload(client.send("FUNCTION", "DUMP"))
    for at in range(len(dumped)):
        damaged = dumped[:at] + bytes((dumped[at] ^ 1,)) + dumped[at + 1 :]
        assert client.show("FUNCTION", "RESTORE", damaged, "REPLACE") == (
            "!ERR DUMP payload version or checksum are wrong"
        )
    value = payload(client.send("DUMP", "k")) if client.show("SET", "k", "v") == "OK" else b""
    assert client.show("FUNCTION", "RESTORE", value) == "!ERR given type is not a function"


def test_an_interpreter_that_has_no_memory_left_is_replaced_with_all_libraries(world, client):
    world.service.scripts.memory_bytes = 2_000_000
    client.send("FUNCTION", "LOAD", COUNTER)
    client.send("FUNCTION", "LOAD", put())
    assert [client.show("FCALL", "count", 0) for _ in range(3)] == ["1", "2", "3"]
    assert client.show("FCALL", "hoard", 0) == "!ERR script ran out of memory (script: hoard)"
    assert client.show("FCALL", "put", 1, "k", "v") == "OK"
    assert client.show("FCALL", "count", 0) == "1", "local variables begin again"


def test_scripts_and_functions_have_interpreters_of_their_own(client):
    client.send("FUNCTION", "LOAD", COUNTER)
    client.send("FCALL", "count", 0)
    client.send("SCRIPT", "FLUSH")
    client.send("EVAL", "local t = {} while true do t[#t + 1] = {#t} end", 0)
    client.send("FLUSHALL")
    assert client.show("FCALL", "count", 0) == "2"


def test_a_function_and_a_text_that_never_end_are_stopped(world, client):
    now_s = iter(range(10**9))
    world.service.scripts.stopwatch_s = lambda: next(now_s) / 10
    client.send("FUNCTION", "LOAD", COUNTER)
    assert client.show("FCALL", "spin", 0) == "!ERR script was stopped after its time limit, script: spin"
    assert client.show("FUNCTION", "LOAD", "#!lua name=never\nwhile true do end") == (
        "!ERR Error registering functions: ERR FUNCTION LOAD timeout"
    )
    assert client.show("FCALL", "count", 0) == "1"


def test_texts_take_no_more_memory_than_the_interpreter_may(world, client):
    world.service.scripts.memory_bytes = 1_000_000
    said = [
        client.show(
            "FUNCTION",
            "LOAD",
            f"#!lua name=l{at}\nredis.register_function('f{at}', function() return {at} end) --" + "x" * 30_000,
        )
        for at in range(100)
    ]
    assert said[-1] == "!OOM the libraries take more than --script-memory"
    assert client.show("FCALL", "f7", 0) == "7"
    for text in ("{" * 10_000, "x" * 3_000_000, "do " * 100_000):
        assert client.show("FUNCTION", "LOAD", "#!lua name=bad\n" + text).startswith("!ERR Error")
    assert client.show("FCALL", "f7", 0) == "7"


def test_flags_and_the_memory_limit(world, client):
    client.send("SET", "k", "v" * 1000)
    client.send("FUNCTION", "LOAD", put())
    client.send("FUNCTION", "LOAD", put("'no-writes'").replace("store", "reader").replace("put", "get"))
    client.send("FUNCTION", "LOAD", put("'allow-oom'").replace("store", "free").replace("put", "put_anyway"))
    world.keyspace.limit(1)
    assert client.show("FCALL", "put", 1, "k", "w").startswith("!OOM allow-oom flag is not set on the script")
    assert "Write commands are not allowed" in client.show("FCALL", "get", 1, "k", "w")
    assert client.show("FCALL", "put_anyway", 1, "k", "w") == "OK"


def test_functions_run_in_transactions_and_not_in_scripts(client):
    client.send("FUNCTION", "LOAD", put())
    client.send("MULTI")
    client.send("FCALL", "put", 1, "k", "v")
    assert client.show("EXEC") == "[OK]"
    assert "not allowed from script" in client.show("EVAL", "return redis.call('FCALL', 'put', 1, 'k', 'v')", 0)
    assert client.show("COMMAND", "GETKEYS", "FCALL", "put", 2, "a", "b", "c") == '["a", "b"]'


def test_replies_in_resp3(client):
    client.send("HELLO", "3")
    client.send("FUNCTION", "LOAD", put("'no-writes'"))
    assert client.show("FUNCTION", "LIST") == (
        '[{"library_name": "store", "engine": "LUA", "functions": [{"name": "put", "description": nil, '
        '"flags": {no-writes}}]}]'
    )
    assert client.show("FUNCTION", "STATS") == (
        '{"running_script": nil, "engines": {"LUA": {"libraries_count": 1, "functions_count": 1}}}'
    )


def test_what_info_says_of_scripts_and_functions(world, client):
    scripts = world.service.scripts
    assert not any(scripts.memory_figures().values())
    client.send("EVAL", "return 1", 0)
    client.send("FUNCTION", "LOAD", COUNTER)
    figures = scripts.memory_figures()
    assert figures["number_of_cached_scripts"] == figures["number_of_libraries"] == 1
    assert figures["number_of_functions"] == 3
    assert figures["used_memory_scripts"] == figures["used_memory_scripts_eval"] + figures["used_memory_functions"] > 0
    assert figures["used_memory_vm_total"] > figures["used_memory_vm_eval"] > 10_000
    client.send("FUNCTION", "FLUSH")
    client.send("SCRIPT", "FLUSH")
    assert not any(scripts.memory_figures().values())
