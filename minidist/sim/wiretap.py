"""What hosts sent each other, noted for the picture of a failure: who, to whom, when it left and arrived, what it said.

It listens in while a seed is run again to be looked at; other runs pay nothing for it. Bytes are put into words by
`summary`, which knows the protocols by their first bytes.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from minidist.sim.host import Host
from minidist.sim.summary import summary

if TYPE_CHECKING:
    from minidist.sim.host import Host
    from minidist.sim.world import World

MAX_MESSAGES = 50_000


@dataclass(frozen=True, slots=True)
class Message:
    """One write of a host. Times are virtual seconds; `arrived_s` is that of its last byte, None if it never did."""

    source: str
    target: str
    sent_s: float
    arrived_s: float | None
    bytes: int
    text: str


class Wiretap:
    """Keeps what is sent in this world in `messages`, from `begin` on."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.messages: list[Message] = []

    def begin(self) -> None:
        self.world.network.tap = self._note

    def _note(self, source: "Host", target: "Host", port: int, arrives_s: float | None, data: bytes) -> None:
        if len(self.messages) < MAX_MESSAGES:
            text = summary(data)
            self.messages.append(Message(source.name, target.name, self.world.now_s, arrives_s, len(data), text))
