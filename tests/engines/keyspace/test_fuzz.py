"""Any command with any arguments answers with a well-formed reply, never with a traceback, and keeps the books."""

from hypothesis import given, settings
from hypothesis import strategies as st

from minidist.engines.keyspace.commands import all_commands
from minidist.wire.resp_client import NOTHING, PlainReplyReader

NAMES = [
    each.name.encode().split() for row in all_commands().commands.values() for each in (row, *row.subcommands.values())
]
OPTIONS = (
    b"NX XX GT LT GET EX PX EXAT PXAT KEEPTTL PERSIST REPLACE DB MATCH COUNT TYPE ID ADDR USER SKIPME yes no".split()
)
OPTIONS += (
    b"ON OFF SKIP ALL WRITE LEN IDX MINMATCHLEN WITHMATCHLEN SAMPLES FILTERBY PATTERN AUTH SETNAME LIB-NAME".split()
)
OPTIONS += b"LEFT RIGHT BEFORE AFTER RANK MAXLEN BY LIMIT ASC DESC ALPHA STORE".split()
OTHERS = [
    b"",
    b"a",
    b"b",
    b"{a}c",
    b"0",
    b"1",
    b"-1",
    b"10",
    b"1.5",
    b"9223372036854775807",
    b"*",
    b"\r\n",
    b"\xff",
    b"[",
    b"x" * 300,
]
ARGUMENTS = st.lists(st.sampled_from([*OPTIONS, *OTHERS]), max_size=6)
COMMANDS = st.lists(st.tuples(st.sampled_from(NAMES), ARGUMENTS).map(lambda each: (*each[0], *each[1])), max_size=25)


@given(COMMANDS, st.booleans())
@settings(max_examples=200)
def test_any_commands(world_type, commands, resp3):
    world = world_type()
    world.keyspace.limit_bytes = 20_000
    client = world.client()
    client.session.speak(resp3)
    for command in commands:
        if client.session.ended:
            client = world.client()
        reply = client.send(*command)
        reader = PlainReplyReader()
        reader.feed(reply)
        while reader.next() is not NOTHING:
            pass
        assert reader.idle, (command, reply)
        world.wait(50)
        world.service.outbox.clear()
    world.wait(10**12)
    world.service.wake(world.now_ms)
