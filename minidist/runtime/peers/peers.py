"""A node's links to the other members of its cluster: dialled, accepted, kept, and used by name.

Between two nodes there is one link. Who dials is a policy (`dials(me, peer)`): by default the smaller name dials the
larger. When both do, and meet, the link that the smaller name dialled stays. A dialled peer that is lost, or that
refuses us, is dialled again, after a time that doubles with each failure and is drawn at random from its upper half, so
that the nodes of a cluster do not come back all at once.

A node that comes twice is one whose link broke without our noticing, and gets in; another node of the same name
(`instance` differs) is refused as long as the first one is there.
"""

import asyncio
import random
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from minidist.runtime.config import Address
from minidist.runtime.endpoint import DialError
from minidist.runtime.logs import NodeLog
from minidist.runtime.metrics import Family, counter
from minidist.runtime.peers.errors import NotConnected
from minidist.runtime.peers.handshake import INSTANCE_BYTES, Identity, Purpose, Refusal, Self
from minidist.runtime.peers.link import Link, LinkState
from minidist.runtime.peers.requests import Body, Handler
from minidist.runtime.peers.streams import Stream, StreamHandler
from minidist.wire.frames import MAX_FRAME_BYTES, Kind

if TYPE_CHECKING:
    import ssl

    from minidist.runtime.endpoint import Dialler, Endpoint

T = TypeVar("T")

KEPT_REASONS = 100


@dataclass(frozen=True, slots=True)
class PeerLimits:
    """What links may take. Times are loop time."""

    max_frame_bytes: int = MAX_FRAME_BYTES
    max_buffered_bytes: int = 4 * MAX_FRAME_BYTES  # per link: a few of the largest frames
    max_streams: int = 64  # per link and direction; each may hold one window (256 KiB)
    max_waiting_requests: int = 1024  # per link: requests whose handlers have not answered yet
    max_greeting: int = 64  # strangers in their handshake; a cluster is smaller
    handshake_timeout_s: float = 2.0
    dial_timeout_s: float = 1.0
    backoff_s: float = 0.05
    backoff_max_s: float = 1.0
    heartbeat_s: float = 0.5  # two small frames a second on an idle link
    silence_limit_s: float = 3.0  # a crashed host; a long pause of a busy machine is shorter


@dataclass(slots=True)
class PeerCounters:
    """What happened since the start or the last reset."""

    links_up: int = 0
    links_down: int = 0
    refusals: int = 0
    timeouts: int = 0
    overflows: int = 0
    unknown: int = 0


def smaller_dials_larger(me: str, peer: str) -> bool:
    """The usual policy: one of each two nodes dials, and both know which."""
    return me < peer


class Peers:
    """The other members, by name. `handlers` and `stream_handlers` are tables the component fills before `start()`.

    `on_up` and `on_down` are called with a peer's name when its link has come up or gone down. `token(n)` gives n
    random bytes that nobody can guess: `os.urandom`, or the simulation's own.
    """

    def __init__(
        self,
        name: str,
        members: Mapping[str, Address],
        *,
        dialler: "Dialler[Link]",
        rng: random.Random,
        token: Callable[[int], bytes],
        cluster_id: str = "",
        secret: bytes = b"",
        client_addresses: Mapping[str, str] | None = None,
        dials: Callable[[str, str], bool] = smaller_dials_larger,
        limits: PeerLimits | None = None,
        tls: "ssl.SSLContext | None" = None,
        log: NodeLog | None = None,
    ) -> None:
        self.name = name
        self.members = dict(members)
        self.limits = limits or PeerLimits()
        self.log = log or NodeLog(name)
        self.token = token
        self.counters = PeerCounters()
        self.handlers: dict[str, Handler] = {}
        self.stream_handlers: dict[str, StreamHandler] = {}
        self.on_up: list[Callable[[str], object]] = []
        self.on_down: list[Callable[[str], object]] = []
        self.links: dict[str, Link] = {}
        # The live mapping of the node's listeners: it is read at each handshake.
        self.client_addresses: Mapping[str, str] = client_addresses if client_addresses is not None else {}
        self.me = Self(name, cluster_id, secret, token(INSTANCE_BYTES), self.members, self.client_addresses)
        dialler.concerns_everyone = True  # faults without a peer are about links too, whoever dialled them
        self._dialler = dialler
        self._random = rng
        self._dials = dials
        self._tls = tls
        self._all: dict[Link, None] = {}  # every connection, whatever its state and purpose
        self._known: dict[str, Mapping[str, str]] = {}
        self._troubles: dict[str, str] = {}  # why a peer is not connected, as last logged
        self._refusals: dict[str, int] = {}  # how often somebody was refused, by reason
        self._tasks: dict[asyncio.Task[Any], None] = {}
        self._heartbeat: asyncio.TimerHandle | None = None
        self._closed = False

    # --- life -------------------------------------------------------------------------------------------------------

    def accept(self, listener: "Endpoint[Link]") -> Link:
        """The factory for the listener of `--peer-listen`."""
        return Link(listener, self)

    def start(self) -> None:
        """Begin to dial, and to listen to heartbeats. Links come up when they can; nothing waits for them."""
        self._arm_heartbeat()
        for peer in sorted(self.members):
            if peer != self.name and self._dials(self.name, peer):
                self.start_task(self._keep_dialling(peer))

    async def close(self) -> None:
        """Take every link down, after what was sent before; end every task."""
        self._closed = True
        if self._heartbeat is not None:
            self._heartbeat.cancel()
        for link in list(self._all):
            link.become_down("this node is stopping")
            link.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- use --------------------------------------------------------------------------------------------------------

    def request(self, peer: str, method: str, body: Body, deadline_s: float) -> "asyncio.Future[Body]":
        """Ask a peer; the future's result is its answer. Times are loop time.

        Raises NotConnected at once when it was certainly not sent (FrameTooLarge, TypeError: for a body that cannot
        be). The future fails with Timeout or LinkLost when nobody knows, with RequestFailed when the peer said no.
        """
        return self._link(peer).requests.ask(method, body, deadline_s)

    def send(self, peer: str, method: str, body: Body) -> None:
        """Tell a peer, without an answer; it may get lost with the link. Raises NotConnected."""
        self._link(peer).send_frame(Kind.SEND, method, body)

    def open_stream(self, peer: str, method: str, body: Body) -> Stream:
        """A stream over the link. Raises NotConnected; a peer that does not want it resets it."""
        return self._link(peer).streams.open(method, body)

    async def open_own_stream(self, peer: str, method: str, body: Body) -> Stream:
        """A stream on a connection of its own, for bulk: it does not stand in the way of the link's messages.

        Raises NotConnected.
        """
        if peer not in self.members:
            raise NotConnected(peer, "no such member")
        link = await self._dial(peer, Purpose.STREAM)
        return link.streams.open(method, body)

    def connected(self, peer: str) -> bool:
        return peer in self.links

    def addresses_of(self, peer: str) -> Mapping[str, str]:
        """Where a peer's clients connect, by listener, as it said last; empty before it was first met."""
        return self._known.get(peer, {})

    def trouble(self, peer: str) -> str:
        """Why a peer is not connected, in one line; empty when it is or nothing is known."""
        return self._troubles.get(peer, "")

    def status(self, lag: Callable[[str], int | None] = lambda peer: None) -> list[dict[str, Any]]:
        """The contract's `peers`; `lag` says how far behind a peer is, if the component knows."""
        return [
            {"name": peer, "address": str(address), "connected": peer in self.links, "lag": lag(peer)}
            for peer, address in sorted(self.members.items())
            if peer != self.name
        ]

    def families(self) -> list[Family]:
        """The links' metrics."""
        connected = [({"peer": peer}, int(peer in self.links)) for peer in sorted(self.members) if peer != self.name]
        counters = self.counters
        return [
            Family("peer_connected", "gauge", "1 while the link to the peer is up.", connected),
            counter("peer_links_up_total", "Links that came up.", counters.links_up),
            counter("peer_links_down_total", "Links that went down.", counters.links_down),
            counter("peer_refusals_total", "Handshakes and links ended by a refusal.", counters.refusals),
            counter("peer_timeouts_total", "Requests without an answer within their deadline.", counters.timeouts),
            counter("peer_overflows_total", "Links dropped because the peer took too little.", counters.overflows),
            counter("peer_unknown_total", "One-way messages whose method nobody knows.", counters.unknown),
        ]

    def _link(self, peer: str) -> Link:
        link = self.links.get(peer)
        if link is None:
            raise NotConnected(peer, self._troubles.get(peer) or "not connected")
        return link

    # --- dialling ---------------------------------------------------------------------------------------------------

    async def _keep_dialling(self, peer: str) -> None:
        failures = 0
        while True:
            present = self.links.get(peer)
            try:
                link = present or await self._dial(peer, Purpose.LINK)
            except NotConnected as error:
                failures += 1
                self._note_trouble(peer, error.reason)
            else:
                failures = 0
                await asyncio.shield(link.down)
            await asyncio.sleep(self._backoff_s(failures))

    def _backoff_s(self, failures: int) -> float:
        longest = min(self.limits.backoff_max_s, self.limits.backoff_s * float(2 ** min(failures, 16)))
        return longest * self._random.uniform(0.5, 1.0)

    async def _dial(self, peer: str, purpose: Purpose) -> Link:
        """A link that is up. Raises NotConnected."""
        try:
            link = await self._dialler.dial(
                self.members[peer],
                lambda dialler: Link(dialler, self, peer, purpose),
                timeout_s=self.limits.dial_timeout_s,
                peer_name=peer,
                tls=self._tls,
            )
        except DialError as error:
            raise NotConnected(peer, str(error)) from error
        if link.closing and link.state is LinkState.GREETING:
            raise NotConnected(peer, "refused by a fault")
        try:
            await link.ready
        except asyncio.CancelledError:
            link.drop("given up")
            raise
        return link

    # --- what links tell --------------------------------------------------------------------------------------------

    def greets(self, link: Link) -> Refusal | None:
        """A new connection; why it is not even greeted, if so."""
        strangers = sum(each.state is LinkState.GREETING and not each.dials for each in self._all)
        self._all[link] = None
        if self._closed:
            return Refusal("stopping", f"{self.name!r} is stopping")
        if not link.dials and strangers >= self.limits.max_greeting:
            return Refusal("busy", "too many strangers are being greeted")
        return None

    def objection(self, identity: Identity) -> Refusal | None:
        """Why a proven dialler is not let in, if so."""
        present = self.links.get(identity.name)
        if identity.purpose is Purpose.STREAM or present is None or present.identity is None:
            return None
        if present.identity.instance != identity.instance:
            return Refusal("duplicate-name", f"another node is connected as {identity.name!r}")
        if present.dials and self.name < identity.name:
            return Refusal("duplicate-link", f"{self.name!r} has dialled {identity.name!r} already")
        return None

    def link_up(self, link: Link) -> None:
        peer = link.peer_name
        assert link.identity is not None
        self._known[peer] = dict(link.identity.addresses)
        if link.purpose is Purpose.STREAM:
            return
        present = self.links.get(peer)
        if present is not None:
            if link.dials and not present.dials and peer < self.name:
                link.drop("the other side's link stays")
                return
            present.drop("replaced by a newer link")
        self.links[peer] = link
        self.counters.links_up += 1
        self._troubles.pop(peer, None)
        self.log.info("peer up", peer=peer, address=link.peer, dialled=bool(link.dials))
        for callback in self.on_up:
            callback(peer)

    def link_down(self, link: Link, was_up: bool) -> None:
        self._all.pop(link, None)
        peer = link.peer_name
        if not was_up or self.links.get(peer) is not link:
            return
        del self.links[peer]
        self.counters.links_down += 1
        self._troubles[peer] = link.down_reason
        if self._closed:
            return  # nobody here is to react any more
        self.log.info("peer down", peer=peer, reason=link.down_reason)
        for callback in self.on_down:
            callback(peer)

    def refused(self, link: Link, refusal: Refusal) -> None:
        """A handshake (or a link) ended in a refusal; a dialler's retries are logged when the reason changes."""
        self.counters.refusals += 1
        if link.dials:
            self._note_trouble(link.dials, refusal.reason)
            return
        # It will come again and again: the first of a reason is logged, and then each tenth power.
        count = self._refusals.get(refusal.reason, 0) + 1
        if len(self._refusals) < KEPT_REASONS or count > 1:
            self._refusals[refusal.reason] = count
        if str(count).strip("0") == "1":
            self.log.warning("peer refused", address=link.peer, code=refusal.code, reason=refusal.reason, times=count)

    def _note_trouble(self, peer: str, reason: str) -> None:
        if self._troubles.get(peer) != reason:
            self._troubles[peer] = reason
            self.log.warning("no link to peer", peer=peer, reason=reason)

    # --- time and tasks ---------------------------------------------------------------------------------------------

    def _arm_heartbeat(self) -> None:
        self._heartbeat = asyncio.get_running_loop().call_later(self.limits.heartbeat_s, self._beat)

    def _beat(self) -> None:
        for link in list(self._all):
            if link.state in (LinkState.UP, LinkState.WELCOMED):
                link.tick()
        self._arm_heartbeat()

    def start_task(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        """A task that is cancelled when the node stops."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks[task] = None
        task.add_done_callback(lambda done: self._tasks.pop(done, None))
        return task
