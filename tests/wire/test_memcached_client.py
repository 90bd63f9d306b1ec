"""memcached as a client reads it: whole replies from pieces cut anywhere."""

import pytest

from minidist.wire import memcached_client as memcached
from minidist.wire.resp_client import NOTHING, ReplyError
from minidist.wire.resp_plain import ProtocolError

REPLIES = (
    b"VALUE k 0 5\r\nhello\r\nEND\r\nEND\r\nSTORED\r\n17\r\nVALUE k 3 0\r\n\r\nEND\r\nNOT_FOUND\r\n"
    b"VALUE k 0 12 7\r\n\r\nEND\r\nEND\r\n\r\nEND\r\nSERVER_ERROR out of memory\r\n"
)
READ = [b"hello", None, "STORED", "17", b"", "NOT_FOUND", b"\r\nEND\r\nEND\r\n", "SERVER_ERROR out of memory"]


def read(pieces):
    reader = memcached.ReplyReader()
    found = []
    for piece in pieces:
        reader.feed(piece)
        while (reply := reader.next()) is not NOTHING:
            found.append(str(reply) if isinstance(reply, ReplyError) else reply)
    return found


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50, 1000])
def test_replies_cut_anywhere(size):
    assert read(REPLIES[at : at + size] for at in range(0, len(REPLIES), size)) == READ


def test_a_long_value_comes_in_many_pieces():
    value = bytes(range(256)) * 4000
    whole = b"STORED\r\nVALUE k 0 %d\r\n%b\r\nEND\r\nEND\r\n" % (len(value), value)
    assert read(whole[at : at + 65_536] for at in range(0, len(whole), 65_536)) == ["STORED", value, None]


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 400 Bad Request\r\n", b"VALUE k 0\r\n", b"VALUE k 0 x\r\n", b"VALUE k 0 9999999999\r\n",
        b"VALUE k 0 1\r\naaEND\r\nEND\r\n", b"x" * 3000, b"\r\n", b"\xff\r\n",
    ],
)  # fmt: skip
def test_what_is_no_reply_is_an_error(data):
    with pytest.raises(ProtocolError):
        read([data])


def test_requests():
    assert memcached.get(b"k") == b"get k\r\n"
    assert memcached.store(b"set", b"k", b"ab", 60) == b"set k 0 60 2\r\nab\r\n"
    assert memcached.incr(b"n") == b"incr n 1\r\n"
