"""Faults and toxics see requests of RESP without the server's help."""

from minidist.wire.resp import RespInspector, encode_command

INSPECTOR = RespInspector()


def test_requests_with_name_key_and_end():
    first, second = encode_command([b"get", b"user:1"]), b"SET user:2 x\r\n"
    assert INSPECTOR.requests(first + second) == [
        ("GET", "user:1", len(first)),
        ("SET", "user:2", len(first + second)),
    ]


def test_a_partial_request_is_left_out():
    whole = encode_command([b"PING"])
    assert INSPECTOR.requests(whole + whole[:-1]) == [("PING", "", len(whole))]
    assert INSPECTOR.requests(b"") == []


def test_what_is_no_resp_ends_the_list():
    whole = encode_command([b"PING"])
    assert INSPECTOR.requests(whole + b"*1\r\n:1\r\n" + whole) == [("PING", "", len(whole))]


def test_keys_that_stand_elsewhere():
    commands = {
        (b"OBJECT", b"ENCODING", b"k"): "k",
        (b"EVAL", b"return 1", b"1", b"k"): "k",
        (b"CLIENT", b"SETNAME", b"x"): "",
        (b"GET",): "",
        (b"GET", b"\xff"): "\\xff",
    }
    for command, key in commands.items():
        assert INSPECTOR.requests(encode_command(command))[0][1] == key


def test_error_replies():
    assert INSPECTOR.error_reply(b"", "ERR busy") == b"-ERR busy\r\n"
    assert INSPECTOR.error_reply(b"", "LOADING wait\r\n") == b"-LOADING wait  \r\n"
    assert INSPECTOR.error_reply(b"", "too busy") == b"-ERR too busy\r\n"
