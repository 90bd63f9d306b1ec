"""The handshake as frames in, frames out: the good run in full, every refusal, and nothing forged or replayed."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidist.runtime.peers.handshake import Handshake, Purpose, Refusal, Self, State, Step
from minidist.wire.frames import Decoder, Encoder, Frame, FrameError, Kind

MEMBERS = ("a", "b", "c")
NONCE_A, NONCE_B = b"A" * 32, b"B" * 32


def node(name: str, **changes: Any) -> Self:
    description: dict[str, Any] = {
        "name": name,
        "cluster_id": "shop",
        "secret": b"s3cret",
        "instance": name.encode() * 16,
        "members": MEMBERS,
        "addresses": {"resp": f"127.0.0.1:{ord(name)}"},
    }
    return Self(**(description | changes))


def over_the_wire(frame: tuple[Any, ...]) -> Frame:
    (decoded,) = Decoder().feed(Encoder().encode(*frame))
    return decoded


class Meeting:
    """A dialler and an acceptor, with what each said."""

    def __init__(self, dialler: Handshake, acceptor: Handshake) -> None:
        self.sides = {"dialler": dialler, "acceptor": acceptor}
        self.steps: dict[str, Step] = {}
        self.said: list[tuple[str, Frame]] = []

    def run(self, tamper: Callable[[Frame], Frame] = lambda frame: frame) -> "Meeting":
        inbox = [("acceptor", self.sides["dialler"].hello())]
        while inbox:
            to, frame = inbox.pop(0)
            other = "dialler" if to == "acceptor" else "acceptor"
            received = tamper(over_the_wire(frame))
            self.said.append((other, received))
            step = self.steps[to] = self.sides[to].received(received)
            inbox += [(other, each) for each in step.send]
            if to == "acceptor" and step.identity is not None:
                inbox.append((other, self.sides[to].welcome()))
        return self

    def refusal(self, side: str) -> Refusal | None:
        return self.steps[side].refusal


def meet(dialler: Self | None = None, acceptor: Self | None = None, dials: str = "b", **options: Any) -> Meeting:
    return Meeting(
        Handshake(dialler or node("a"), NONCE_A, dials=dials, **options),
        Handshake(acceptor or node("b"), NONCE_B, **{k: v for k, v in options.items() if k == "loopback"}),
    )


def test_the_whole_conversation() -> None:
    meeting = meet().run()
    assert meeting.said == [
        (
            "dialler",
            [
                Kind.HELLO, "minidist-peer", 1, 1,
                {"name": "a", "cluster": "shop", "instance": b"a" * 16, "nonce": NONCE_A,
                 "addresses": {"resp": "127.0.0.1:97"}, "to": "b", "purpose": "link"},
            ],
        ),
        (
            "acceptor",
            [
                Kind.CHALLENGE, 1,
                {"name": "b", "cluster": "shop", "instance": b"b" * 16, "nonce": NONCE_B,
                 "addresses": {"resp": "127.0.0.1:98"}},
            ],
        ),
        ("dialler", [Kind.PROOF, bytes.fromhex(PROOF)]),
        ("acceptor", [Kind.WELCOME, bytes.fromhex(WELCOME)]),
    ]  # fmt: skip
    known_to_acceptor, known_to_dialler = meeting.steps["acceptor"].identity, meeting.steps["dialler"].identity
    assert known_to_acceptor is not None
    assert known_to_dialler is not None
    assert (known_to_acceptor.name, known_to_acceptor.addresses) == ("a", {"resp": "127.0.0.1:97"})
    assert (known_to_dialler.name, known_to_dialler.instance) == ("b", b"b" * 16)
    assert {side.state for side in meeting.sides.values()} == {State.PROVEN}


# Computed by hand from docs/peers.md: HMAC-SHA-256(secret, "minidist-peer dialler " + SHA-256(both first frames)).
PROOF = "fe0ae6b194b92038fecc2181d758b9e45e0eeb61c40790357b00dffe5d481b4f"
WELCOME = "18c9375e491487084d2ba915c5c98f82814631ac8b9636e590ed37da0fd8b2ef"


def test_a_purpose_travels() -> None:
    meeting = meet(purpose=Purpose.STREAM).run()
    assert meeting.steps["acceptor"].identity is not None
    assert meeting.steps["acceptor"].identity.purpose is Purpose.STREAM


@pytest.mark.parametrize(
    ("changes", "code", "reason", "refuser"),
    [
        ({"acceptor": node("b", secret=b"other")}, "secret", "the cluster secret is not the same", "acceptor"),
        ({"acceptor": node("b", secret=b"")}, "secret", "the cluster secret is not the same", "acceptor"),
        (
            {"acceptor": node("b", cluster_id="bank")},
            "cluster-id", "cluster id is 'shop', here it is 'bank'", "acceptor",
        ),
        ({"acceptor": node("a")}, "duplicate-name", "this node is called 'a' too", "acceptor"),
        ({"acceptor": node("b", members=("b", "c"))}, "unknown-member", "'b' knows no member 'a'", "acceptor"),
        ({"acceptor": node("c")}, "wrong-name", "this is 'c', not 'b'", "acceptor"),
        (
            {"acceptor": node("b", versions=(2, 3))},
            "version", "speaks protocol versions 1 to 1, 'b' 2 to 3", "acceptor",
        ),
        (
            {"dialler": node("a", secret=b""), "acceptor": node("b", secret=b""), "loopback": False},
            "loopback-only", "without a cluster secret only loopback peers are accepted", "acceptor",
        ),
    ],
)  # fmt: skip
def test_a_refusal_is_known_on_both_sides(changes: Any, code: str, reason: str, refuser: str) -> None:
    meeting = meet(**changes).run()
    assert {side.state for side in meeting.sides.values()} == {State.REFUSED}
    for side in ("dialler", "acceptor"):
        refusal = meeting.refusal(side)
        assert refusal == Refusal(code, reason, by_peer=side != refuser)


def test_without_secrets_two_loopback_nodes_meet() -> None:
    meeting = meet(node("a", secret=b""), node("b", secret=b"")).run()
    assert meeting.steps["dialler"].identity is not None


def test_with_a_secret_nodes_meet_off_loopback() -> None:
    meeting = meet(loopback=False).run()
    assert meeting.steps["dialler"].identity is not None


def test_the_highest_version_of_both_is_spoken() -> None:
    meeting = meet(node("a", versions=(1, 4)), node("b", versions=(2, 3))).run()
    assert [step.identity.version for step in meeting.steps.values() if step.identity] == [3, 3]


def test_a_version_that_was_not_offered_is_refused() -> None:
    def choose_seven(frame: Frame) -> Frame:
        return [Kind.CHALLENGE, 7, frame[2]] if frame[0] == Kind.CHALLENGE else frame

    meeting = meet().run(choose_seven)
    assert meeting.refusal("dialler") == Refusal("version", "protocol version 7 chosen, offered were 1 to 1")


def test_a_dialler_does_not_take_another_node_for_the_one_it_dialled() -> None:
    def pose_as_c(frame: Frame) -> Frame:
        return [Kind.CHALLENGE, 1, frame[2] | {"name": "c"}] if frame[0] == Kind.CHALLENGE else frame

    assert meet().run(pose_as_c).refusal("dialler") == Refusal("wrong-name", "dialled 'b', met 'c'")


def test_a_proof_of_another_conversation_is_worth_nothing() -> None:
    (old,) = (frame for _, frame in meet().run().said if frame[0] == Kind.PROOF)
    dialler, acceptor = Handshake(node("a"), NONCE_A, dials="b"), Handshake(node("b"), b"C" * 32)
    acceptor.received(over_the_wire(dialler.hello()))  # the same hello, but this time b has another nonce
    assert acceptor.received(old).refusal == Refusal("secret", "the cluster secret is not the same")


def test_a_proof_cannot_be_sent_back_as_a_welcome() -> None:
    dialler = Handshake(node("a"), NONCE_A, dials="b")
    acceptor = Handshake(node("b"), NONCE_B)
    (challenge,) = acceptor.received(over_the_wire(dialler.hello())).send
    (proof,) = dialler.received(over_the_wire(challenge)).send
    step = dialler.received([Kind.WELCOME, proof[1]])
    assert step.refusal == Refusal("secret", "the cluster secret is not the same")


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_whatever_is_changed_on_the_way_nobody_is_proven_by_it(data: st.DataObject) -> None:
    """One bit of one frame: the side that gets it, or the other one later, does not accept the conversation."""
    victim = data.draw(st.sampled_from([Kind.HELLO, Kind.CHALLENGE, Kind.PROOF, Kind.WELCOME]))
    changed = False

    def tamper(frame: Frame) -> Frame:
        nonlocal changed
        if frame[0] != victim:
            return frame
        raw = bytearray(Encoder().encode(*frame))
        place = data.draw(st.integers(4, len(raw) - 1))
        raw[place] ^= 1 << data.draw(st.integers(0, 7))
        try:
            (damaged,) = Decoder().feed(bytes(raw))
        except (FrameError, ValueError):
            return [Kind.REFUSED, "protocol", "bad frame"]
        changed = damaged != frame
        return damaged

    meeting = meet().run(tamper)
    if changed:
        assert {side.state for side in meeting.sides.values()} != {State.PROVEN}
        if victim != Kind.WELCOME:
            assert all(step.identity is None for step in meeting.steps.values())


hostile_values = st.none() | st.integers() | st.text(max_size=5) | st.binary(max_size=33) | st.just({"x": 1})
hostile_identities = st.dictionaries(
    st.sampled_from(["name", "to", "cluster", "instance", "nonce", "addresses", "purpose", "other"]), hostile_values
)


@given(st.lists(st.tuples(st.sampled_from(list(Kind)), hostile_identities), max_size=3))
@settings(max_examples=200, deadline=None)
def test_strange_frames_are_refused_in_one_line(frames: list[tuple[Kind, dict[str, Any]]]) -> None:
    acceptor = Handshake(node("b"), NONCE_B)
    identity = over_the_wire(Handshake(node("a"), NONCE_A, dials="b").hello())[4]
    for kind, changes in frames:
        fields = {
            Kind.HELLO: ["minidist-peer", 1, 1, identity | changes],
            Kind.REFUSED: ["code", "one\nline"],
            Kind.PROOF: [b"guess"],
        }.get(kind, [])  # fmt: skip
        step = acceptor.received([kind, *fields])
        assert step.identity is None
        if step.refusal is not None:
            assert "\n" not in step.refusal.reason
            return


@pytest.mark.parametrize(
    "frame",
    [[Kind.PING, 1], [Kind.PROOF, b""], [Kind.WELCOME, b""], [Kind.HELLO, "GET / HTTP/1.1", 1, 1, {}]],
)
def test_what_comes_first_must_be_a_hello(frame: Frame) -> None:
    refusal = Handshake(node("b"), NONCE_B).received(frame).refusal
    assert refusal is not None
    assert refusal.code == "protocol"


def test_what_cannot_be_repeated_is_refused() -> None:
    hello = over_the_wire(Handshake(node("a"), NONCE_A, dials="b").hello())
    hello[4]["extra"] = 2**70  # what a timestamp far in the future decodes to
    refusal = Handshake(node("b"), NONCE_B).received(hello).refusal
    assert refusal == Refusal("protocol", "HELLO cannot be repeated")


def test_nothing_follows_a_refusal() -> None:
    acceptor = Handshake(node("b"), NONCE_B)
    acceptor.refuse(Refusal("busy", "not now"))
    step = acceptor.received(over_the_wire(Handshake(node("a"), NONCE_A, dials="b").hello()))
    assert step.refusal is not None
    assert step.identity is None
