"""Peer frames: round trips, every split point, limits before allocation, and a decoder that garbage cannot surprise."""

import tracemalloc
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidist.wire.frames import (
    BODY,
    BYTES,
    COUNT,
    LENGTH,
    MAP,
    SHAPES,
    TEXT,
    Decoder,
    Encoder,
    Frame,
    FrameError,
    FrameTooLarge,
    Kind,
    MalformedFrame,
    reference,
)

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.binary(max_size=40)
)
keys = st.text(max_size=8) | st.binary(max_size=8)
bodies = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4), max_leaves=8
)
FIELDS: dict[type, st.SearchStrategy[Any]] = {
    COUNT: st.integers(0, 2**64 - 1),
    TEXT: st.text(max_size=12),
    BYTES: st.binary(max_size=64),
    MAP: st.dictionaries(keys, bodies, max_size=3),
    BODY: bodies,
}
frames = st.sampled_from(list(SHAPES)).flatmap(
    lambda kind: st.tuples(st.just(int(kind)), *(FIELDS[wanted] for _, wanted in SHAPES[kind].fields)).map(list)
)


def encoded(*payloads: Any) -> bytes:
    """Frames by hand, fitting or not."""
    packed = [msgpack.packb(payload) for payload in payloads]
    return b"".join(LENGTH.pack(len(each)) + each for each in packed)


def decode(decoder: Decoder, *pieces: bytes) -> tuple[list[Frame], str]:
    """Everything decoded, and the error that ended it."""
    found: list[Frame] = []
    try:
        for piece in pieces:
            for frame in decoder.feed(piece):
                found.append(frame)  # noqa: PERF402  (what came before an error counts)
    except FrameError as error:
        return found, str(error)
    return found, ""


@given(st.lists(frames, min_size=1, max_size=4), st.data())
@settings(max_examples=150, deadline=None)
def test_what_is_encoded_is_decoded_however_it_is_cut(sent: list[Frame], data: st.DataObject) -> None:
    encoder = Encoder()
    stream = b"".join(encoder.encode(*frame) for frame in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert decode(Decoder(), *pieces) == (sent, "")


def test_every_split_point_gives_the_same_frames_and_the_same_error() -> None:
    encoder = Encoder()
    stream = (
        encoder.encode(Kind.REQUEST, 1, 2000, "kv.append", {"term": 3, "entries": [b"a", b"b"]})
        + encoder.encode(Kind.PING, 9)
        + encoded([99])
    )
    expected = ([[7, 1, 2000, "kv.append", {"term": 3, "entries": [b"a", b"b"]}], [5, 9]], "unknown frame kind 99")
    assert decode(Decoder(), stream) == expected
    assert decode(Decoder(), *(stream[i : i + 1] for i in range(len(stream)))) == expected
    for cut in range(len(stream)):
        assert decode(Decoder(), stream[:cut], stream[cut:]) == expected


@given(st.lists(st.binary(max_size=60), max_size=4))
@settings(max_examples=200, deadline=None)
def test_garbage_is_a_frame_error_or_waits_for_more(pieces: list[bytes]) -> None:
    found, _ = decode(Decoder(max_frame_bytes=100), *pieces)
    assert all(frame[0] in SHAPES for frame in found)


@given(frames, st.data())
@settings(max_examples=200, deadline=None)
def test_a_damaged_frame_never_gets_through_misshapen(frame: Frame, data: st.DataObject) -> None:
    stream = bytearray(Encoder().encode(*frame))
    place = data.draw(st.integers(LENGTH.size, len(stream) - 1))
    stream[place] = data.draw(st.integers(0, 255))
    for found in decode(Decoder(), bytes(stream))[0]:
        shape = SHAPES[Kind(found[0])]
        assert len(found) == 1 + len(shape.fields)
        assert all(type(v) is want or want is BODY for v, (_, want) in zip(found[1:], shape.fields, strict=True))


@pytest.mark.parametrize(
    ("payload", "error"),
    [
        (7, "not an array that starts with a frame kind"),
        ([], "not an array that starts with a frame kind"),
        ([True, 1], "not an array that starts with a frame kind"),
        (["5", 1], "not an array that starts with a frame kind"),
        ([16], "unknown frame kind 16"),
        ([-1], "unknown frame kind -1"),
        ([5], "PING has 0 fields, not 1"),
        ([5, 1, 2], "PING has 2 fields, not 1"),
        ([5, -1], "PING: token is int, not count"),
        ([5, True], "PING: token is bool, not count"),
        ([5, 1.0], "PING: token is float, not count"),
        ([10, b"method", None], "SEND: method is bytes, not text"),
        ([12, 1, "data"], "CHUNK: data is str, not bytes"),
        ([1, 1, []], "CHALLENGE: identity is list, not map"),
        ([10, "m", {1: 2}], "not msgpack: int is not allowed for map key when strict_map_key=True"),
        ([10, "m", msgpack.ExtType(5, b"x")], "not msgpack: extension type 5"),
    ],
)
def test_what_does_not_fit_the_table_is_refused_with_its_reason(payload: Any, error: str) -> None:
    assert decode(Decoder(), encoded(payload)) == ([], error)


@pytest.mark.parametrize(
    "payload",
    [
        b"",  # nothing
        b"\xc1",  # the byte msgpack never uses
        b"\x91",  # an array without its element
        b"\x92\x05\x01\x00",  # a good frame and one byte more
        b"\x91" * 3000,  # nested deeper than msgpack goes
        b"\x93\x0a\xa1m\xa1\xff",  # text that is not UTF-8
        b"\x93\x0a\xa1m\xd6\xff\xff\xff\xff",  # half a timestamp
    ],
)
def test_what_is_not_msgpack_is_malformed(payload: bytes) -> None:
    with pytest.raises(MalformedFrame):
        list(Decoder().feed(LENGTH.pack(len(payload)) + payload))


def test_a_timestamp_arrives_as_a_plain_integer() -> None:
    stream = encoded([10, "m", msgpack.Timestamp(1, 5)])
    assert decode(Decoder(), stream) == ([[10, "m", 1_000_000_005]], "")


def test_a_length_above_the_limit_is_refused_from_its_four_bytes() -> None:
    for pieces in ([LENGTH.pack(101)], [b"\0\0", b"\0", b"\x65"]):
        assert decode(Decoder(max_frame_bytes=100), *pieces) == ([], "frame of 101 bytes, allowed are 100")
    assert decode(Decoder(max_frame_bytes=100), LENGTH.pack(100)) == ([], "")


@pytest.mark.parametrize("header", [b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff"])
def test_a_claimed_size_allocates_nothing(header: bytes) -> None:
    decoder = Decoder(max_items=16)
    tracemalloc.start()
    try:
        # Nested claims: each level may reserve max_items elements at most.
        error = decode(decoder, encoded_raw(b"\xdc\x00\x10" * 500 + header))[1]
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert error.startswith("not msgpack")
    assert peak_bytes < 500_000


def encoded_raw(payload: bytes) -> bytes:
    return LENGTH.pack(len(payload)) + payload


def test_a_large_frame_in_many_pieces_is_joined_once() -> None:
    body = bytes(3_000_000)
    stream = Encoder().encode(Kind.CHUNK, 1, body)
    decoder = Decoder()
    pieces = [stream[i : i + 1000] for i in range(0, len(stream), 1000)]
    assert decode(decoder, *pieces) == ([[12, 1, body]], "")


def test_a_frame_too_large_to_send_is_refused_before_it_is_sent() -> None:
    encoder = Encoder(max_frame_bytes=100)
    with pytest.raises(FrameTooLarge, match=r"^frame of 2[0-9]+ bytes, allowed are 100$"):
        encoder.encode(Kind.SEND, "m", bytes(200))
    assert decode(Decoder(), encoder.encode(Kind.PING, 1)) == ([[5, 1]], "")


@pytest.mark.parametrize("body", [{1, 2}, object(), 2**64, 1j])
def test_what_msgpack_has_not_is_the_callers_mistake(body: object) -> None:
    encoder = Encoder()
    with pytest.raises((TypeError, OverflowError)):
        encoder.encode(Kind.SEND, "m", body)
    assert decode(Decoder(), encoder.encode(Kind.PING, 1)) == ([[5, 1]], "")


def test_every_kind_has_a_shape_and_bodies_come_last() -> None:
    assert set(SHAPES) == set(Kind)
    for shape in SHAPES.values():
        assert all(wanted is not BODY for _, wanted in shape.fields[:-1])


def test_the_reference_page_has_the_table() -> None:
    page = (Path(__file__).parents[2] / "docs" / "peers.md").read_text()
    table = page.split("tests/wire/test_frames.py -->\n")[1].split("<!-- end of frames -->")[0]
    assert table == reference(), "put minidist.wire.frames.reference() between the markers of docs/peers.md"
