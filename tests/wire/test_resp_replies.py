"""Replies out, and read back by both readers, in RESP2 and RESP3."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidist.wire import resp_replies as replies
from minidist.wire.resp_client import NOTHING, HiredisReplyReader, PlainReplyReader, ReplyError
from minidist.wire.resp_plain import ProtocolError

READERS = [PlainReplyReader, HiredisReplyReader]

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.binary(max_size=40), st.floats(allow_nan=False)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.binary(max_size=5), inner, max_size=4)),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("value", "resp2", "resp3"),
    [
        (b"a\r\nb", b"$4\r\na\r\nb\r\n", b"$4\r\na\r\nb\r\n"),
        ("text", b"$4\r\ntext\r\n", b"$4\r\ntext\r\n"),
        (5, b":5\r\n", b":5\r\n"),
        (-5000, b":-5000\r\n", b":-5000\r\n"),
        (None, b"$-1\r\n", b"_\r\n"),
        (True, b":1\r\n", b"#t\r\n"),
        (False, b":0\r\n", b"#f\r\n"),
        (1.5, b"$3\r\n1.5\r\n", b",1.5\r\n"),
        (3.0, b"$1\r\n3\r\n", b",3\r\n"),
        (math.inf, b"$3\r\ninf\r\n", b",inf\r\n"),
        (-math.inf, b"$4\r\n-inf\r\n", b",-inf\r\n"),
        (math.nan, b"$3\r\nnan\r\n", b",nan\r\n"),
        ([], b"*0\r\n", b"*0\r\n"),
        ([1, [b"a"]], b"*2\r\n:1\r\n*1\r\n$1\r\na\r\n", b"*2\r\n:1\r\n*1\r\n$1\r\na\r\n"),
        ({"a": 1}, b"*2\r\n$1\r\na\r\n:1\r\n", b"%1\r\n$1\r\na\r\n:1\r\n"),
        ({1, 2}, b"*2\r\n:1\r\n:2\r\n", b"~2\r\n:1\r\n:2\r\n"),
        (replies.Status("OK"), b"+OK\r\n", b"+OK\r\n"),
    ],
)
def test_each_type(value, resp2, resp3):
    assert replies.encode(value, False) == resp2
    assert replies.encode(value, True) == resp3


def test_a_value_without_a_type_is_a_bug():
    with pytest.raises(TypeError, match="object"):
        replies.encode(object(), True)


def test_headers_and_texts():
    assert replies.push_header(2, True) == b">2\r\n"
    assert replies.push_header(2, False) == b"*2\r\n"
    assert replies.verbatim(b"abc", True) == b"=7\r\ntxt:abc\r\n"
    assert replies.verbatim(b"abc", False) == b"$3\r\nabc\r\n"
    assert replies.null_array(False) == b"*-1\r\n"
    assert replies.null_array(True) == b"_\r\n"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"), (-0.0, "-0"), (3.0, "3"), (-1.5, "-1.5"), (0.1, "0.1"), (math.inf, "inf"), (-math.inf, "-inf"),
        (1e17, "100000000000000000"), (2.0**62, "4611686018427387904"), (5e18, "5e+18"), (1.25e20, "1.25e+20"),
        (1e300, "1e+300"), (0.00001, "0.00001"), (1e-7, "1e-7"), (-1.5e-7, "-1.5e-7"),
        (0.30000000000000004, "0.30000000000000004"),
        (0.00012345678, "1.2345678e-4"), (12345.678901234, "1.2345678901234e+4"), (123456.789, "123456.789"),
        (1700000000.1234567, "1.7000000001234567e+9"), (5e-324, "5e-324"), (3.14159265358979, "3.14159265358979"),
    ],
)  # fmt: skip
def test_doubles_are_written_as_by_redis_72(value, text):
    assert replies.double_text(value) == text.encode()


@given(st.floats(allow_nan=False))
def test_doubles_mean_what_they_were(value):
    assert float(replies.double_text(value)) == value


def test_errors_cannot_break_out_of_their_line():
    assert replies.error("ERR a\r\nb\udcff") == b"-ERR a  b\xff\r\n"


def as_resp2(value: object) -> object:
    """What a RESP2 client sees of a value."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, float):
        return replies.double_text(value)
    if isinstance(value, dict):
        return [as_resp2(each) for pair in value.items() for each in pair]
    return [as_resp2(each) for each in value] if isinstance(value, list) else value


@pytest.mark.parametrize("reader_type", READERS)
@given(values=st.lists(VALUES, max_size=4), resp3=st.booleans(), cut=st.integers(0, 300))
def test_both_readers_read_what_was_written(reader_type, values, resp3, cut):
    wire = b"".join(replies.encode(value, resp3) for value in values)
    reader = reader_type()
    read = []
    for piece in (wire[:cut], wire[cut:]):
        reader.feed(piece)
        while (value := reader.next()) is not NOTHING:
            read.append(value)
    assert read == (values if resp3 else [as_resp2(value) for value in values])


@pytest.mark.parametrize("reader_type", READERS)
def test_errors_are_values(reader_type):
    reader = reader_type()
    reader.feed(b"-ERR no\r\n*1\r\n-ERR inner\r\n=5\r\ntxt:x\r\n>1\r\n:1\r\n(123456789012345678901\r\n")
    error, nested, text, push, big = (reader.next() for _ in range(5))
    assert isinstance(error, ReplyError)
    assert str(error) == "ERR no"
    assert isinstance(nested[0], ReplyError)
    assert text == b"x"
    assert list(push) == [1]
    assert int(big) == 123456789012345678901
    assert reader.next() is NOTHING


@pytest.mark.parametrize(
    "wire",
    [b"?\r\n", b":x\r\n", b"$x\r\n", b"*-5\r\n", b"*99999999\r\n", b"$1\r\nabc\r\n", b"#x\r\n", b"*1\r\n" * 70],
)
def test_the_plain_reader_refuses(wire):
    reader = PlainReplyReader()
    reader.feed(wire)
    with pytest.raises(ProtocolError):
        reader.next()


def test_hiredis_refuses_with_the_same_error():
    reader = HiredisReplyReader()
    reader.feed(b"?\r\n")
    with pytest.raises(ProtocolError):
        reader.next()
