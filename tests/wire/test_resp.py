"""Commands in: the fast path and the plain parser accept the same, cut anywhere, and refuse with Redis' words."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidist.wire.resp import CommandReader, Limits, Pipeline, ProtocolError, StrangerReader, encode_command
from minidist.wire.resp_plain import PlainParser, split_inline, strict_integer

WORDS = st.one_of(
    st.binary(max_size=12),
    st.sampled_from([b"", b"GET", b"SET", b"key", b"a\r\nb", b"\r\n", b"$3\r\n", b"*1\r\n", b"\r", b"x" * 3000]),
)
COMMANDS = st.lists(st.lists(WORDS, min_size=1, max_size=6).map(tuple), max_size=8)


def plainly(data: bytes, limits: Limits | None = None) -> tuple[list[tuple[bytes, ...]], str]:
    """What the oracle makes of some bytes: commands, and the violation that ends them."""
    parser = PlainParser(limits or Limits(), data)
    commands = []
    try:
        while (command := parser.next()) is not None:
            commands.append(command)
    except ProtocolError as violation:
        return commands, str(violation)
    return commands, ""


def in_pieces(data: bytes, cuts: list[int]) -> tuple[list[tuple[bytes, ...]], str]:
    """The same through a CommandReader that gets the bytes in pieces."""
    reader = CommandReader()
    commands = []
    for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        if start == end:
            continue
        some, violation = reader.feed(data[start:end])
        commands += some
        if violation:
            return commands, str(violation)
    return commands, ""


def alike(length: int) -> st.SearchStrategy[bytes]:
    """Arguments of one length."""
    return st.binary(min_size=length, max_size=length)


@st.composite
def pipelines(draw: st.DrawFn) -> list[tuple[bytes, ...]]:
    """One command again and again, with arguments of the same lengths, or of any."""
    name = draw(st.sampled_from([b"GET", b"SET", b"p", b""]))
    arguments = st.tuples(*[draw(st.sampled_from([alike(3), alike(7), WORDS])) for _ in range(draw(st.integers(0, 4)))])
    return [(name, *each) for each in draw(st.lists(arguments, min_size=2, max_size=6))]


class TestWholeCommands:
    def test_one(self):
        assert CommandReader().feed(b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n") == ([(b"GET", b"k")], None)

    def test_several_in_one_read(self):
        data = encode_command([b"SET", b"k", b"v"]) + encode_command([b"PING"]) + encode_command([b"DEL", *[b"k"] * 9])
        assert CommandReader().feed(data) == ([(b"SET", b"k", b"v"), (b"PING",), (b"DEL", *[b"k"] * 9)], None)

    @pytest.mark.parametrize(
        "irregular",
        [
            b"PING\r\n",
            b"*0\r\n",
            b"*-1\r\n",
            b"*1\r\n$4\r\n\r\nab\r\n",
            b"*01\r\n$4\r\nPING\r\n",
            b"*1\r\n$04\r\nPING\r\n",
        ],
    )
    def test_what_is_irregular_goes_to_the_plain_parser(self, irregular):
        whole = encode_command([b"GET", b"k"])
        for wire in (irregular + whole, whole + irregular + whole, whole * 3 + irregular):
            assert in_pieces(wire, []) == plainly(wire)

    def test_a_partial_command_behind_whole_ones_waits(self):
        reader = CommandReader()
        whole = encode_command([b"GET", b"k"])
        commands, _ = reader.feed(whole * 2 + whole[:-1])
        assert list(commands) == [(b"GET", b"k")] * 2
        assert reader.feed(whole[-1:]) == ([(b"GET", b"k")], None)

    def test_nothing_stays_behind_between_commands(self):
        reader = CommandReader()
        reader.feed(b"*2\r\n$3\r\nGET\r\n$1\r\n")
        assert not reader.idle
        assert reader.feed(b"k\r\n") == ([(b"GET", b"k")], None)
        assert reader.idle

    def test_a_long_value_in_many_reads(self):
        value = bytes(range(256)) * 4096
        data = encode_command([b"SET", b"k", value]) * 2
        assert in_pieces(data, list(range(65536, len(data), 65536))) == ([(b"SET", b"k", value)] * 2, "")


class TestCutAnywhere:
    def test_every_split_point(self):
        data = (
            encode_command([b"SET", b"k", b"a\r\nb"]) + b'set "a b" c\r\n' + encode_command([b"GET", b"k"]) + b"*0\r\n"
        )
        expected = ([(b"SET", b"k", b"a\r\nb"), (b"set", b"a b", b"c"), (b"GET", b"k")], "")
        for cut in range(len(data) + 1):
            assert in_pieces(data, [cut]) == expected

    def test_byte_by_byte(self):
        data = encode_command([b"SET", b"k", b"\r\n"]) + b"PING\r\n"
        assert in_pieces(data, list(range(1, len(data)))) == ([(b"SET", b"k", b"\r\n"), (b"PING",)], "")

    @given(COMMANDS, st.data())
    def test_what_was_encoded_comes_out(self, commands, data):
        wire = b"".join(encode_command(command) for command in commands)
        cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=5)))
        assert in_pieces(wire, cuts) == (commands, "")

    @given(COMMANDS, st.data())
    def test_the_fast_path_agrees_with_the_oracle_on_damaged_bytes(self, commands, data):
        wire = bytearray(b"".join(encode_command(command) for command in commands) + b"PING\r\n")
        for _ in range(data.draw(st.integers(0, 4))):
            at = data.draw(st.integers(0, len(wire) - 1))
            wire[at : at + data.draw(st.integers(0, 2))] = data.draw(
                st.sampled_from([b"", b"\r", b"\n", b"$", b"*", b"1", b"-", b"9"])
            )
            if not wire:
                return
        cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=3)))
        assert in_pieces(bytes(wire), cuts) == plainly(bytes(wire))

    @given(pipelines(), st.data())
    def test_pipelines_of_one_command(self, commands, data):
        wire = bytearray(b"".join(map(encode_command, commands)))
        assert in_pieces(bytes(wire), []) == (commands, "")
        for _ in range(data.draw(st.integers(0, 2))):
            at = data.draw(st.integers(0, len(wire) - 1))
            wire[at : at + 1] = data.draw(st.sampled_from([b"", b"\r", b"\n", b"$", b"*", b"1", b"2", b"xx"]))
        assert in_pieces(bytes(wire), []) == plainly(bytes(wire))

    @pytest.mark.parametrize("arguments", [(b"key",), (b"key", b"value")])
    def test_every_byte_of_a_pipeline_counts(self, arguments):
        wire = encode_command([b"DO", *arguments]) * 3
        for at in range(len(wire)):
            for other in (b"", b"\r", b"\n", b"0", b"9", b"$", wire[at : at + 1] * 2):
                damaged = wire[:at] + other + wire[at + 1 :]
                assert in_pieces(damaged, []) == plainly(damaged)

    @given(st.binary(max_size=200))
    def test_any_bytes_at_all(self, wire):
        assert in_pieces(wire, []) == plainly(wire)


class TestPipelines:
    def test_one_command_again_and_again_comes_by_column(self):
        for keys in ([b"a", b"b", b"c"], [b"a", b"bb", b"ccc"]):
            commands, _ = CommandReader().feed(b"".join(encode_command([b"SET", key, b"v"]) for key in keys))
            assert isinstance(commands, Pipeline)
            assert [list(column) for column in commands.columns] == [[b"SET"] * 3, keys, [b"v"] * 3]

    @pytest.mark.parametrize("arguments", [1, 2, 3, 4])
    def test_of_one_shape(self, arguments):
        sent = [(b"NAME", *[b"%04d" % (10 * number + at) for at in range(arguments)]) for number in range(20)]
        commands, violation = CommandReader().feed(b"".join(map(encode_command, sent)))
        assert isinstance(commands, Pipeline)
        assert (list(commands), violation) == (sent, None)

    @given(
        name=st.sampled_from([b"GET", b"X" * 33]),
        shape=st.lists(st.sampled_from([0, 1, 2, 3, 64]), min_size=1, max_size=5),
        count=st.integers(1, 20),
        filler=st.binary(max_size=8) | st.sampled_from([b"\r\n", b"\r\n$1\r\n"]),
        damage=st.none() | st.tuples(st.integers(0, 5000), st.binary(max_size=3)),
    )
    def test_of_nearly_one_shape(self, name, shape, count, filler, damage):
        command = encode_command([name, *[(filler * 64)[:length] for length in shape]])
        wire = command * count
        if damage is not None:
            at, there = damage[0] % len(wire), damage[1]
            wire = wire[:at] + there + wire[at + len(there) :]
        assert in_pieces(wire, []) == plainly(wire)

    def test_is_a_sequence_of_commands(self):
        pipeline = Pipeline([b"GET"] * 3, [b"a", b"b", b"c"])
        assert len(pipeline) == 3
        assert pipeline[1] == (b"GET", b"b")
        assert isinstance(pipeline[1:], Pipeline)
        assert list(pipeline[1:]) == [(b"GET", b"b"), (b"GET", b"c")]
        assert not pipeline[3:]


class TestViolations:
    @pytest.mark.parametrize(
        ("wire", "text"),
        [
            (b"*x\r\n", "invalid multibulk length"),
            (b"*1048577\r\n", "invalid multibulk length"),
            (b"*200000000\r\n", "invalid multibulk length"),
            (b"*99999999999999999999\r\n", "invalid multibulk length"),
            (b"*+1\r\n", "invalid multibulk length"),
            (b"*1\r\n$-1\r\n", "invalid bulk length"),
            (b"*1\r\n$x\r\n", "invalid bulk length"),
            (b"*1\r\n$536870913\r\n", "invalid bulk length"),
            (b"*1\r\n:1\r\n", "expected '$', got ':'"),
            (b"*1\r\n*1\r\n", "expected '$', got '*'"),
            (b"*1\r\n\r\n", "expected '$', got '\r'"),
            (b"*1\r\n$4\r\nPINGxx", "expected CRLF after bulk string"),
            (b"*1\rx", "expected LF after CR"),
            (b"a" * 65537, "too big inline request"),
            (b"*" + b"1" * 65537, "too big mbulk count string"),
            (b"*1\r\n$" + b"1" * 65537, "too big bulk count string"),
            (b'SET a "b\r\n', "unbalanced quotes in request"),
            (b"SET a 'b\r\n", "unbalanced quotes in request"),
            (b'SET a "b"c\r\n', "unbalanced quotes in request"),
        ],
    )
    def test_each_has_redis_words(self, wire, text):
        assert in_pieces(wire, []) == ([], text)
        assert in_pieces(b"PING\r\n" + wire, [3]) == ([(b"PING",)], text)

    def test_commands_before_the_violation_count(self):
        wire = encode_command([b"GET", b"k"]) + b"*1\r\n:1\r\n" + encode_command([b"GET", b"k"])
        assert in_pieces(wire, []) == ([(b"GET", b"k")], "expected '$', got ':'")

    @pytest.mark.parametrize(
        "claim", [b"*200000000\r\n", b"*1048576\r\n", b"*2\r\n$536870912\r\n", b"*1048576\r\n$536870912\r\n"]
    )
    def test_a_claim_allocates_nothing(self, claim):
        reader = CommandReader()
        tracemalloc.start()
        reader.feed(claim)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 10_000

    def test_a_command_has_a_limit_in_all(self):
        limits = Limits(command_bytes=100)
        wire = b"*3\r\n$60\r\n" + b"x" * 60 + b"\r\n$60\r\n"
        assert plainly(wire, limits) == ([], "too big command")


class TestStrangers:
    def test_one_command_at_a_time(self):
        reader = StrangerReader()
        assert reader.feed(b"PING\r\n" + encode_command([b"AUTH", b"pw"]) + b"rest") == ([(b"PING",)], None)
        assert reader.feed() == ([(b"AUTH", b"pw")], None)
        assert reader.rest() == b"rest"
        assert reader.feed() == ([], None)

    @pytest.mark.parametrize(
        ("wire", "text"),
        [
            (b"*11\r\n", "unauthenticated multibulk length"),
            (b"*1\r\n$16385\r\n", "unauthenticated bulk length"),
            (b"*200000000\r\n", "invalid multibulk length"),
            (b"*1\r\n$536870913\r\n", "invalid bulk length"),
        ],
    )
    def test_stricter_limits(self, wire, text):
        commands, violation = StrangerReader().feed(wire)
        assert (commands, str(violation)) == ([], text)


class TestInlineCommands:
    @pytest.mark.parametrize(
        ("line", "words"),
        [
            (b"", []),
            (b"   ", []),
            (b"PING", [b"PING"]),
            (b"  SET  a\tb ", [b"SET", b"a", b"b"]),
            (b'SET a "b c"', [b"SET", b"a", b"b c"]),
            (b'SET a ""', [b"SET", b"a", b""]),
            (b'"\\x41\\n\\r\\t\\b\\a\\"\\\\\\q"', [b'A\n\r\t\b\a"\\q']),
            (b'"\\xzz"', [b"xzz"]),
            (b"'a\\'b \\n'", [b"a'b \\n"]),
            (b'a"b', [b"ab"]),
        ],
    )
    def test_quoting(self, line, words):
        if line == b'a"b':
            with pytest.raises(ProtocolError, match="unbalanced"):
                split_inline(line)
        else:
            assert split_inline(line) == words

    def test_lines_may_end_with_lf_alone(self):
        assert in_pieces(b"PING\nECHO x\r\n\r\n", []) == ([(b"PING",), (b"ECHO", b"x")], "")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"0", 0), (b"-1", -1), (b"9223372036854775807", 2**63 - 1), (b"-9223372036854775808", -(2**63)),
        (b"", None), (b"-", None), (b"-0", None), (b"+1", None), (b"01", None), (b" 1", None), (b"1 ", None),
        (b"1_0", None), (b"9223372036854775808", None), (b"1" * 30, None), (b"1.0", None),
    ],
)  # fmt: skip
def test_strict_integers(text, value):
    assert strict_integer(text) == value
