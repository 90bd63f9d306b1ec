"""Links between the nodes of a cluster: requests, one-way messages and streams, by the other node's name.

    peers = Peers("a", {"a": …, "b": …}, dialler=node.dialler("peer"), rng=ports.random, token=os.urandom, secret=…)
    peers.handlers["kv.read"] = read                      # read(peer, body) -> body
    await node.listen("peer", config.peer_listen, peers.accept)
    peers.start()
    value = await peers.request("b", "kv.read", {"key": b"k"}, deadline_s=2)

The wire protocol is described in docs/peers.md; `errors.py` tells apart what certainly had no effect from what may have
had one.
"""

from minidist.runtime.peers.errors import (
    LinkLost,
    NotConnected,
    OutcomeUnknown,
    PeerFailure,
    PeerRefused,
    PeerTooSlow,
    RequestFailed,
    StreamReset,
    Timeout,
)
from minidist.runtime.peers.link import Link
from minidist.runtime.peers.peers import PeerLimits, Peers, smaller_dials_larger
from minidist.runtime.peers.streams import Stream

__all__ = [
    "Link",
    "LinkLost",
    "NotConnected",
    "OutcomeUnknown",
    "PeerFailure",
    "PeerLimits",
    "PeerRefused",
    "PeerTooSlow",
    "Peers",
    "RequestFailed",
    "Stream",
    "StreamReset",
    "Timeout",
    "smaller_dials_larger",
]
