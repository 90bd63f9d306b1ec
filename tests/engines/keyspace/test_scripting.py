"""What transcripts cannot say of scripts: where errors arose, what stops a script, what it cannot reach."""

import pytest

from minidist.engines.keyspace.tables import NEVER

pytest.importorskip("lupa")

SPINNING = [
    "while true do end",
    "while true do pcall(function() while true do end end) end",
    "local function again() return xpcall(again, again) end while true do pcall(again) end",
    "while true do coroutine.wrap(function() pcall(error) end)() end",
    "repeat local f = loadstring('while true do end') pcall(f) until false",
    "coroutine.wrap(function() while true do end end)()",
    "while true do coroutine.resume(coroutine.create(function() while true do end end)) end",
    "local function nest(n) if n < 50 then for i = 1, 500 do coroutine.wrap(nest)(n + 1) end end end nest(1)",
]


class Stopwatch:
    """Every look at it takes a tenth of a second."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        self.now_s += 0.1
        return self.now_s


@pytest.mark.parametrize("source", SPINNING)
def test_a_script_is_stopped_after_its_time_whatever_it_catches(world, client, source):
    world.service.scripts.stopwatch_s = Stopwatch()
    world.service.scripts.limit_s = 1.0
    assert client.show("EVAL", "redis.call('SET', 'before', 'kept') " + source, 0).startswith(
        "!ERR script was stopped after its time limit"
    )
    assert client.show("GET", "before") == '"kept"', "what was written stays"
    assert client.show("EVAL", "return 'next'", 0) == '"next"'


def test_a_script_is_stopped_where_time_stands_still(world, client, monkeypatch):
    monkeypatch.setattr("minidist.engines.keyspace.lua.machine.MOST_INSTRUCTIONS", 1_000_000)
    assert client.show("EVAL", "while true do end", 0).startswith("!ERR script was stopped")
    assert client.show("EVAL", "local n = 0 for i = 1, 100000 do n = n + i end return n", 0) == "5000050000"


def test_instructions_are_not_what_the_limit_counts_where_time_goes_on(world, client, monkeypatch):
    monkeypatch.setattr("minidist.engines.keyspace.lua.machine.MOST_INSTRUCTIONS", 1_000_000)
    world.service.scripts.stopwatch_s = Stopwatch()
    world.service.scripts.limit_s = 1000.0
    assert client.show("EVAL", "local n = 0 for i = 1, 2000000 do n = n + 1 end return n", 0) == "2000000"


@pytest.mark.parametrize(
    "source",
    [
        "local t = {} for i = 1, 1e9 do t[i] = i end",
        "local s = 'x' while true do s = s .. s end",
        "local t = {} while true do t[#t + 1] = string.rep('x', 1e6) .. #t end",
        "return string.rep('x', 1e9)",
        "return ('x'):rep(1e9)",
        "return string.find(string.rep('a', 2e6), string.rep('a?', 100) .. 'b')",
    ],
)
def test_a_script_cannot_take_the_memory_or_the_processor_for_itself(client, source):
    assert client.show("EVAL", source, 0).startswith("!ERR")
    assert client.show("EVAL", "return 'next'", 0) == '"next"'


@pytest.mark.parametrize(
    "source",
    [
        "return io.open('/etc/passwd')", "return os.execute('true')", "return require('os')", "return dofile('x')",
        "return loadfile('x')", "return debug.getinfo(1)", "return package.path", "return python.eval('1')",
        "return newproxy()", "return getfenv(0)", "return setfenv(1, {})", "return module('x')", "return print('x')",
        "return loadstring(string.char(27) .. 'Lua')()", "return string.dump(function() end)",
    ],
)  # fmt: skip
def test_a_script_reaches_nothing_outside(client, source):
    assert client.show("EVAL", source, 0).startswith("!ERR")


@pytest.mark.parametrize(
    "source",
    [
        "x = 1", "_G.x = 1", "redis.call = nil", "string.x = 1", "KEYS = nil", "rawset(redis, 'x', 1)",
        "setmetatable(_G, nil)", "getmetatable('').__index = nil", "cjson.x = 1", "math.random = nil",
    ],
)  # fmt: skip
def test_nothing_stays_behind_for_the_next_script(client, source):
    client.show("EVAL", f"pcall(function() {source} end) return 1", 0)
    assert client.show("EVAL", "return {type(redis.call), type(string.rep), #KEYS, ('a'):upper()}", 1, "k") == (
        '["function", "function", 1, "A"]'
    )
    assert client.show("EVAL", "return x", 0).startswith("!ERR user_script:1: Script attempted to access nonexistent")


def test_errors_say_where_they_arose(client):
    for source, said in (
        ("return foo", "!ERR user_script:1: Script attempted to access nonexistent global variable 'foo' script: "),
        ("\n\nerror('mine')", "!ERR user_script:3: mine script: "),
        ("retrun 1", "!ERR Error compiling script (new function): user_script:1: "),
        ("return redis.call('INCR', 'k')", "!ERR value is not an integer or out of range script: "),
        ("return redis.call('LPUSHX')", "!ERR"),
    ):
        client.send("SET", "k", "v")
        shown = client.show("EVAL", source, 0)
        assert shown.startswith(said)
        if "compiling" not in said and len(said) > 4:
            assert ", on @user_script:" in shown
    assert client.show("EVAL", "local a = {} a[1] = a return a", 0) == "!ERR reached lua stack limit"


def test_a_script_runs_in_its_callers_database_and_keeps_none_of_its_own(world, client):
    client.send("SELECT", 3)
    client.send("EVAL", "redis.call('SET', 'k', 'three') redis.call('SELECT', 5) redis.call('SET', 'k', 'five')", 0)
    assert client.show("GET", "k") == '"three"'
    client.send("SELECT", 5)
    assert client.show("GET", "k") == '"five"'


def test_commands_that_could_wait_do_not(client):
    """As from Redis 7.2 on; before, scripts may not call them."""
    for command in ("'BLPOP', 'none', 0", "'BZPOPMIN', 'none', 0", "'BLMOVE', 'none', 'l', 'LEFT', 'LEFT', 0"):
        assert client.show("EVAL", f"return redis.call({command})", 0) == "nil"


def test_resp3_is_asked_for(client):
    client.send("HELLO", "3")
    assert client.show("EVAL", "return true", 0) == "1"
    assert client.show("EVAL", "redis.setresp(3) return true", 0) == "t"
    assert client.show("EVAL", "redis.setresp(3) return {double = 1.5}", 0) == "1.5"
    assert client.show("EVAL", "redis.setresp(3) return {map = {a = 1}}", 0) == '{"a": 1}'
    assert client.show("EVAL", "redis.setresp(3) return redis.call('GET', 'none')", 0) == "nil"


def test_randomness_is_the_same_in_every_run(world_type):
    source = "return {math.random(1000000), math.random(1000000)}"
    seen = {world_type().client().show("EVAL", source, 0) for _ in range(3)}
    assert len(seen) == 1


def test_watches_and_lifetimes_see_what_scripts_do(world, client):
    other = world.client()
    client.send("WATCH", "k")
    other.send("EVAL", "return redis.call('SET', 'k', 'v', 'PX', 50)", 0)
    client.send("MULTI")
    client.send("GET", "k")
    assert client.show("EXEC") == "nil"
    world.wait(51)
    assert client.show("EVAL", "return redis.call('EXISTS', 'k')", 0) == "0"
    assert world.keyspace.databases[0].due == [] or world.keyspace.databases[0].due[0][0] < NEVER


def test_memory_limit_holds_for_scripts(world, client):
    world.keyspace.limit(200_000)
    source = "for i = 1, 10000 do redis.call('SET', 'key' .. i, string.rep('x', 1000)) end"
    assert client.show("EVAL", source, 0).startswith("!OOM command not allowed")
    assert world.keyspace.used_bytes < 210_000


def test_scripts_of_eval_go_when_there_are_many_and_loaded_ones_stay(world, client, monkeypatch):
    monkeypatch.setattr("minidist.engines.keyspace.scripting.MOST_EVALED", 5)
    scripts = world.service.scripts
    loaded = [scripts.load(b"return 'loaded %d'" % at, stays=True).name for at in range(7)]
    evaled = [scripts.load(b"return 'evaled %d'" % at, stays=False).name for at in range(5)]
    client.send("EVALSHA", evaled[0], 0)
    client.send("EVAL", "return 'evaled 1'", 0)
    client.send("SCRIPT", "LOAD", "return 'evaled 4'")
    for at in range(5, 8):
        client.send("EVAL", f"return 'evaled {at}'", 0)
    assert client.show("SCRIPT", "EXISTS", *loaded) == str([1] * 7)
    assert client.show("SCRIPT", "EXISTS", *evaled) == "[1, 1, 0, 0, 1]", "unless they were used or loaded since"
    assert scripts.evicted == 2
    assert len(scripts.scripts) == 13
    client.send("SCRIPT", "FLUSH")
    assert (len(scripts.scripts), scripts.source_bytes) == (0, 0)


def test_sources_take_no_more_memory_than_the_interpreter_may(world, client):
    scripts = world.service.scripts
    scripts.memory_bytes = 1_000_000
    for at in range(100):
        assert client.show("EVAL", f"return {at} --" + "x" * 30_000, 0) == str(at)
        assert scripts.source_bytes <= 1_000_000
    assert client.show("EVALSHA", client.show("SCRIPT", "LOAD", "return 'kept'").strip('"'), 0) == '"kept"'
    said = [client.show("SCRIPT", "LOAD", f"return {at} --" + "x" * 30_000) for at in range(100)]
    assert said[-1] == "!OOM the scripts that SCRIPT LOAD has brought take more than --script-memory"
    assert 30 < sum(not each.startswith("!") for each in said) < 34
    assert scripts.source_bytes <= 1_000_000


@pytest.mark.parametrize(
    "source",
    [
        "return '" + "x" * 3_000_000 + "'",
        "return " + "{" * 100_000 + "}" * 100_000,
        "return " + "(" * 100_000 + "1" + ")" * 100_000,
        "do " * 100_000 + "end " * 100_000,
        "local x = " + "..".join(["'a'"] * 100_000),
        "return {" + "'abcdefgh' .. 1," * 150_000 + "}",
    ],
    ids=["large", "tables", "parentheses", "blocks", "operators", "constants"],
)
@pytest.mark.parametrize("command", [("EVAL",), ("SCRIPT", "LOAD")])
def test_a_source_that_lua_cannot_compile(world, client, source, command):
    world.service.scripts.memory_bytes = 2_000_000
    client.send("SCRIPT", "LOAD", "return 'before'")
    assert client.show(*command, source, *([0] if command == ("EVAL",) else [])).startswith(
        "!ERR Error compiling script"
    )
    assert client.show("EVAL", "return 'next'", 0) == '"next"'
    assert client.show("EVAL", "return 'before'", 0) == '"before"'


@pytest.mark.parametrize(
    "source",
    [
        "return #redis.call('LRANGE', 'long', 0, -1)",
        "local ok, problem = pcall(redis.call, 'LRANGE', 'long', 0, -1) error(problem)",
        "local t = {} for i = 1, 1e6 do t[i] = redis.call('LINDEX', 'long', i % 3000) .. i end",
        "local t = {} while true do pcall(function() t[#t + 1] = redis.call('PING') .. #t end) end",
        "local t = {} while true do t[#t + 1] = redis.sha1hex(#t) end",
        "local t = {} for i = 1, 1e5 do t[i] = {i} end return t",
        "local t = {} for i = 1, 1e5 do t[i] = cjson.decode('[1, [2, {}]]') end return t",
        "return cjson.decode(string.rep('[', 900) .. string.rep('1,', 300000) .. '1' .. string.rep(']', 900))",
        "return #cmsgpack.unpack(string.char(220, 255, 255) .. string.rep('a', 65535))",
        "return #ARGV[1] + #ARGV",
    ],
)
def test_what_takes_all_the_memory_of_scripts(world, client, source):
    """Where Python puts values into the interpreter, Lua cannot raise: the process would end."""
    world.service.scripts.memory_bytes = 1_000_000
    world.service.scripts.stopwatch_s = Stopwatch()
    for at in range(3000):
        client.send("RPUSH", "long", f"element:{at:01000}")
    arguments = [0, "x" * 2_000_000] if "ARGV" in source else [0]
    shown = client.show("EVAL", source, *arguments)
    assert shown.startswith("!ERR") or shown == "65535"
    assert client.show("EVAL", "return redis.call('LLEN', 'long')", 0) == "3000"
    assert client.show("EVAL", "return #ARGV", 0, *["x"] * 100_000).startswith("!ERR script ran out of memory")
    assert client.show("EVAL", "return redis.call('LLEN', 'long')", 0) == "3000"


def test_the_world_of_scripts_cannot_be_changed(client):
    for source in ("string = nil", "rawset(redis, 'x', 1)", "rawset(_G, 'x', 1)", "redis = {}", "_G.string = {}"):
        assert "Attempt to modify a readonly table" in client.show("EVAL", source, 0)
        assert client.show("EVAL", "return {string.upper('a'), type(redis.call)}", 0) == '["A", "function"]'


def test_without_lupa_it_says_what_to_install(client, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "lupa", None)
    assert client.show("EVAL", "return 1", 0) == (
        "!ERR scripts need Lua, which is not installed here: pip install 'minidist[lua]'"
    )


def test_a_script_is_told_the_version_that_clients_are_told(world, client):
    source = "return {redis.REDIS_VERSION, redis.REDIS_VERSION_NUM}"
    assert client.show("EVAL", source, 0) == f'["7.2.4", {0x070204}]'
    world.service.redis_version = "7.4.12"
    client.send("SCRIPT", "FLUSH")
    assert client.show("EVAL", source, 0) == f'["7.4.12", {0x07040C}]'


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        ("math.random(0)", "bad argument #1 to 'random' (interval is empty)"),
        ("math.random(2, 1)", "bad argument #2 to 'random' (interval is empty)"),
        ("math.random(math.huge)", "bad argument #1 to 'random' (interval is empty)"),
        ("math.random('x')", "bad argument #1 to 'random' (number expected, got string)"),
        ("math.random(1, 2, 3)", "wrong number of arguments"),
        ("math.randomseed()", "bad argument #1 to 'randomseed' (number expected, got no value)"),
    ],
)
def test_random_complains_as_lua_does(client, call, complaint):
    assert complaint in client.show("EVAL", f"return {call}", 0)


def test_random_numbers_depend_on_nothing_but_the_seed(client):
    source = "math.randomseed({}) return {{math.random(1000000), math.random(5, 1000000)}}"
    for seed in ("7", "0/0", "math.huge", "'12'"):
        assert client.show("EVAL", source.format(seed), 0) == client.show("EVAL", source.format(seed), 0)
