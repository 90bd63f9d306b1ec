"""How two nodes meet: each learns who the other is, and that it knows the cluster secret. Pure.

    dialler                                     acceptor
    HELLO      magic, versions, identity   →
                                           ←    CHALLENGE  version, identity
    PROOF      HMAC(secret, "dialler")     →
                                           ←    WELCOME    HMAC(secret, "acceptor")

An identity is a map: `name`, `cluster`, `instance` (16 random bytes, new with each start of the node), `nonce` (32
random bytes, new with each handshake), `addresses` (where the node's clients connect, by listener); the dialler adds
`to` (the name it expects to meet) and `purpose` ("link" or "stream"). Unknown keys are let pass, so that later versions
can say more.

The proofs are HMAC-SHA-256 over the role and both first frames, in msgpack's shortest form. So they cover all that was
said, differ between the roles (a proof cannot be reflected), and are good for these two nonces only (nothing can be
replayed). The dialler proves first: who merely knocks at a door learns nothing to guess the secret from. The secret
guards the door; what is said afterwards is neither encrypted nor signed, which on a hostile network is TLS' work.

Either side ends it with REFUSED, a code and one line for people, which both log. Without a secret the key is empty, and
only loopback peers are let in.
"""

import hashlib
import hmac
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from minidist.wire.frames import Encoder, Frame, Kind

MAGIC = "minidist-peer"
VERSIONS = (1, 1)
"""Lowest and highest protocol version that this code speaks."""

# A hello is a few hundred bytes; strangers may not make us hold more.
MAX_HANDSHAKE_BYTES = 4096
MAX_HANDSHAKE_ITEMS = 64
NONCE_BYTES = 32
INSTANCE_BYTES = 16


class Purpose(Enum):
    """What a connection is for."""

    LINK = "link"
    STREAM = "stream"


@dataclass(frozen=True, slots=True)
class Self:
    """What this node says about itself, and whom it lets in."""

    name: str
    cluster_id: str
    secret: bytes
    instance: bytes
    members: Collection[str]
    addresses: Mapping[str, str]
    versions: tuple[int, int] = VERSIONS


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the other node is. Proven once the handshake is over."""

    name: str
    instance: bytes
    addresses: Mapping[str, str]
    version: int
    purpose: Purpose


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why there is no link; `by_peer` says who refused."""

    code: str
    reason: str
    by_peer: bool = False

    @property
    def frame(self) -> tuple[Any, ...]:
        return (Kind.REFUSED, self.code, self.reason)


class RefusedError(Exception):
    """Carries a Refusal out of the checks; never leaves this module."""

    def __init__(self, code: str, reason: str, by_peer: bool = False) -> None:
        self.refusal = Refusal(code, reason, by_peer)


class State(Enum):
    """Where a handshake is."""

    EXPECTS_HELLO = "expects HELLO"
    EXPECTS_CHALLENGE = "expects CHALLENGE"
    EXPECTS_PROOF = "expects PROOF"
    EXPECTS_WELCOME = "expects WELCOME"
    PROVEN = "proven"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Step:
    """What a received frame leads to: send these frames, then look whether it is over, one way or the other.

    With `identity` the peer is proven; an acceptor may still refuse it (`Handshake.refuse`) or must `welcome()` it.
    With `refusal` the link must be closed after the sending.
    """

    send: tuple[Any, ...] = ()
    identity: Identity | None = None
    refusal: Refusal | None = None


class Handshake:
    """One side of one handshake. A dialler gives the name it dials, an acceptor none."""

    def __init__(
        self, me: Self, nonce: bytes, *, dials: str = "", purpose: Purpose = Purpose.LINK, loopback: bool = True
    ) -> None:
        self._me = me
        self._nonce = nonce
        self._dials = dials
        self._purpose = purpose
        self._loopback = loopback
        self._transcript = b""
        self._identity: Identity | None = None
        self.state = State.EXPECTS_CHALLENGE if dials else State.EXPECTS_HELLO

    def hello(self) -> tuple[Any, ...]:
        """The dialler's first frame, to be sent when the connection is open."""
        low, high = self._me.versions
        frame = (Kind.HELLO, MAGIC, low, high, self._identity_map({"to": self._dials, "purpose": self._purpose.value}))
        self._note(list(frame))
        return frame

    def received(self, frame: Frame) -> Step:
        """The next frame from the other side."""
        kind = frame[0]
        try:
            if kind == Kind.REFUSED:
                raise RefusedError(_one_line(frame[1][:64]), _one_line(frame[2][:512]), by_peer=True)
            if self.state is State.EXPECTS_HELLO and kind == Kind.HELLO:
                return self._on_hello(frame)
            if self.state is State.EXPECTS_CHALLENGE and kind == Kind.CHALLENGE:
                return self._on_challenge(frame)
            if self.state is State.EXPECTS_PROOF and kind == Kind.PROOF:
                return self._on_proof(frame[1])
            if self.state is State.EXPECTS_WELCOME and kind == Kind.WELCOME:
                return self._on_welcome(frame[1])
            raise RefusedError("protocol", f"{Kind(kind).name} came where the other side {self.state.value}")
        except RefusedError as error:
            return self._refused(error.refusal)

    def refuse(self, refusal: Refusal) -> Step:
        """The caller's own reason to end it (too slow, too many, duplicate)."""
        return self._refused(refusal)

    def welcome(self) -> tuple[Any, ...]:
        """The acceptor's last frame, after a Step with an identity."""
        return (Kind.WELCOME, self._mac("acceptor"))

    # --- steps ------------------------------------------------------------------------------------------------------

    def _on_hello(self, frame: Frame) -> Step:
        _, magic, low, high, identity = frame
        if magic != MAGIC:
            raise RefusedError("protocol", f"not a minidist peer: {magic[:32]!r}")
        version = self._agree(low, high)
        self._check_loopback()
        self._note(frame)
        peer = self._read(identity, version, _text(identity, "purpose"))
        expected = _text(identity, "to")
        if peer.name == self._me.name:
            raise RefusedError("duplicate-name", f"this node is called {self._me.name!r} too")
        if peer.name not in self._me.members:
            raise RefusedError("unknown-member", f"{self._me.name!r} knows no member {peer.name!r}")
        if expected != self._me.name:
            raise RefusedError("wrong-name", f"this is {self._me.name!r}, not {expected!r}")
        self._identity = peer
        answer = (Kind.CHALLENGE, version, self._identity_map({}))
        self._note(list(answer))
        self.state = State.EXPECTS_PROOF
        return Step(send=(answer,))

    def _on_challenge(self, frame: Frame) -> Step:
        _, version, identity = frame
        low, high = self._me.versions
        if not low <= version <= high:
            raise RefusedError("version", f"protocol version {version} chosen, offered were {low} to {high}")
        self._check_loopback()
        self._note(frame)
        peer = self._read(identity, version, self._purpose.value)
        if peer.name != self._dials:
            raise RefusedError("wrong-name", f"dialled {self._dials!r}, met {peer.name!r}")
        self._identity = peer
        self.state = State.EXPECTS_WELCOME
        return Step(send=((Kind.PROOF, self._mac("dialler")),))

    def _on_proof(self, mac: bytes) -> Step:
        self._check_mac(mac, "dialler")
        self.state = State.PROVEN
        return Step(identity=self._identity)

    def _on_welcome(self, mac: bytes) -> Step:
        self._check_mac(mac, "acceptor")
        self.state = State.PROVEN
        return Step(identity=self._identity)

    def _refused(self, refusal: Refusal) -> Step:
        self.state = State.REFUSED
        return Step(send=() if refusal.by_peer else (refusal.frame,), refusal=refusal)

    # --- checks -----------------------------------------------------------------------------------------------------

    def _agree(self, low: int, high: int) -> int:
        mine_low, mine_high = self._me.versions
        if high < mine_low or low > mine_high or low > high:
            raise RefusedError(
                "version", f"speaks protocol versions {low} to {high}, {self._me.name!r} {mine_low} to {mine_high}"
            )
        return min(high, mine_high)

    def _check_loopback(self) -> None:
        if not self._me.secret and not self._loopback:
            raise RefusedError("loopback-only", "without a cluster secret only loopback peers are accepted")

    def _read(self, identity: dict[Any, Any], version: int, purpose: str) -> Identity:
        cluster_id, addresses = _text(identity, "cluster"), identity.get("addresses")
        if cluster_id != self._me.cluster_id:
            raise RefusedError("cluster-id", f"cluster id is {cluster_id[:64]!r}, here it is {self._me.cluster_id!r}")
        for key, size in (("nonce", NONCE_BYTES), ("instance", INSTANCE_BYTES)):
            if type(identity.get(key)) is not bytes or len(identity[key]) != size:
                raise RefusedError("protocol", f"identity: {key} must be {size} bytes")
        if type(addresses) is not dict or not all(type(t) is str for pair in addresses.items() for t in pair):
            raise RefusedError("protocol", "identity: addresses must map text to text")
        if purpose not in (Purpose.LINK.value, Purpose.STREAM.value):
            raise RefusedError("protocol", f"identity: unknown purpose {purpose[:32]!r}")
        return Identity(_text(identity, "name"), identity["instance"], addresses, version, Purpose(purpose))

    def _check_mac(self, mac: bytes, role: str) -> None:
        if not hmac.compare_digest(mac, self._mac(role)):
            raise RefusedError("secret", "the cluster secret is not the same")

    # --- proofs -----------------------------------------------------------------------------------------------------

    def _identity_map(self, more: dict[str, str]) -> dict[str, Any]:
        return {
            "name": self._me.name,
            "cluster": self._me.cluster_id,
            "instance": self._me.instance,
            "nonce": self._nonce,
            "addresses": dict(self._me.addresses),
        } | more

    def _note(self, frame: Frame) -> None:
        try:
            self._transcript += Encoder().encode(*frame)
        except (ValueError, OverflowError):  # a stranger's map may be deeper, or its numbers larger, than can be sent
            raise RefusedError("protocol", f"{Kind(frame[0]).name} cannot be repeated") from None

    def _mac(self, role: str) -> bytes:
        transcript = hashlib.sha256(self._transcript).digest()
        return hmac.digest(self._me.secret, b"minidist-peer " + role.encode() + b" " + transcript, "sha256")


def _text(identity: dict[Any, Any], key: str) -> str:
    value = identity.get(key)
    if type(value) is not str or not value.isprintable():
        raise RefusedError("protocol", f"identity: {key} must be text")
    return value


def _one_line(text: str) -> str:
    """A stranger's text goes into our log."""
    return "".join(each if each.isprintable() else "?" for each in text)
