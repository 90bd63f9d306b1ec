"""cjson, cmsgpack, struct and bit: the same answers and complaints as a real redis-server's, for random input."""

import random

import pytest

pytest.importorskip("lupa")

SHOWN = """local r = {pcall(%s)}
for i = 1, #r do
  local kind = type(r[i])
  if kind == 'number' then r[i] = string.format('%%.17g', r[i])
  elseif kind == 'boolean' or kind == 'userdata' then r[i] = kind .. tostring(r[i] == true) end
end return r"""
TOKENS = "1 -1 1.5 1e3 -0 01 0x1F +3 1e400 .5 1. inf NaN 1e --1 12345678901234567890".split()
PIECES = ["a", "\\n", "\\u00e9", "\\ud83d\\ude00", "\\ud83d", "\\udc80", "\\", "\t", "é", "\\/", "\\x", "\\u12"]
ITEMS = [*"b B h H l L T f d x s c0 c1 c3 i I i3 I7 i16 ! !4 < >".split(), " "]
NUMBERS = "1 -1 300 1.7 2.5 2^31 2^32 2^40+3 -2^40 2^53+1 1e300 0.1 -0.5 '7' '0x10'".split()
TEXTS_TOO = [*NUMBERS, "'ab'"]
BITS = "tobit tohex bnot band bor bxor lshift rshift arshift rol ror bswap".split()


def json_text(rng: random.Random, depth: int = 0) -> str:
    kind = rng.randrange(8 if depth < 4 else 5)
    if kind == 0:
        return rng.choice(TOKENS)
    if kind == 1:
        return '"' + "".join(rng.choice([*PIECES, *"bbbbbbbb"]) for _ in range(rng.randrange(5))) + '"'
    if kind == 2:
        return rng.choice(["true", "false", "null", "True", "nul"])
    if kind < 5:
        return str(rng.randrange(100))
    ending = rng.choice([""] * 10 + [",", "x"])
    if kind < 7:
        return "[" + ",".join(json_text(rng, depth + 1) for _ in range(rng.randrange(4))) + ending + "]"
    pairs = (f'"k{rng.randrange(3)}":{json_text(rng, depth + 1)}' for _ in range(rng.randrange(4)))
    return "{" + ",".join(pairs) + ending + rng.choice(["}"] * 9 + [""])


def cases(rng: random.Random):
    """Scripts, each with one argument."""
    decode = "local v = cjson.decode(ARGV[1]) if type(v) ~= 'table' then return v end"
    yield f"function() {decode} return cmsgpack.pack(v[1] or v.k1 or #v) end", json_text(rng).encode()
    data = bytes(rng.choice([rng.randrange(256), 0x92, 0xA1, 0xCC, 0xCB, 1]) for _ in range(rng.randrange(1, 12)))
    again = "local o = {} for i = 1, #r do o[i] = cmsgpack.pack(r[i]) end return unpack(o)"
    yield f"function() local r = {{cmsgpack.unpack(ARGV[1])}} {again} end", data
    form = "".join(rng.choice(ITEMS) for _ in range(rng.randrange(1, 5)))
    values = "".join(f", {rng.choice(TEXTS_TOO)}" for _ in range(5))
    yield f"function() return struct.pack('{form}'{values}) end", b""
    yield f"function() return struct.size('{form}') end", b""
    yield f"function() return struct.unpack('{form}', ARGV[1], {rng.choice(['nil', '1', '2', '5'])}) end", data
    yield f"function() return bit.{rng.choice(BITS)}({rng.choice(NUMBERS)}, {rng.choice(NUMBERS)}) end", b""


@pytest.mark.parametrize("seed", range(4))
def test_like_a_real_server(client, redis_client, seed):
    rng, redis = random.Random(seed), redis_client()
    for _ in range(300):
        for source, argument in cases(rng):
            command = (b"EVAL", " ".join((SHOWN % source).split("\n")).encode(), b"0", argument)
            ours, theirs = client.show(*command), redis.show(*command)
            assert ours == theirs or "table index is nil" in ours, (source, argument)
