"""What can go wrong with a peer, told apart by the one thing that matters: may the message have had its effect?

NotConnected      certainly not: it never left this node. Try again, or elsewhere.
OutcomeUnknown    perhaps: it was sent, and no answer came. A write must not simply be sent again.
RequestFailed     the peer answered; its code says what happened (see docs/peers.md for the codes of the protocol).
"""


class PeerFailure(Exception):
    """Something did not work with the peer named `peer`."""

    def __init__(self, peer: str, reason: str) -> None:
        super().__init__(f"{peer}: {reason}")
        self.peer = peer
        self.reason = reason


class NotConnected(PeerFailure):
    """There is no link to the peer: certainly nothing was sent."""


class PeerTooSlow(NotConnected):
    """The peer took so little that the link's buffer overflowed. This message was not sent; the link was dropped."""


class OutcomeUnknown(PeerFailure):
    """The request was sent, or may have been, and no answer will be seen."""


class Timeout(OutcomeUnknown):
    """No answer within the deadline."""


class LinkLost(OutcomeUnknown):
    """The link went down before the answer came."""


class RequestFailed(PeerFailure):
    """The peer answered with an error. A handler raises `RequestFailed.answer(code, reason)` to do so."""

    def __init__(self, peer: str, code: str, reason: str) -> None:
        super().__init__(peer, f"{code}: {reason}")
        self.code = code
        self.reason = reason

    @classmethod
    def answer(cls, code: str, reason: str) -> "RequestFailed":
        return cls("", code, reason)


class StreamReset(RequestFailed):
    """One side gave the stream up before its end; what was read before is good."""


class PeerRefused(NotConnected):
    """The handshake ended in a refusal, by this node or by the other."""

    def __init__(self, peer: str, code: str, reason: str) -> None:
        super().__init__(peer, reason)
        self.code = code
