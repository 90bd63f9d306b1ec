"""What faults and toxics need to know of a protocol: where requests begin and end, and how an error is said."""

from typing import Protocol


class Inspector(Protocol):
    """Reads the client's side of one protocol without changing anything. Pure."""

    def requests(self, buffer: bytes) -> list[tuple[str, str, int]]:
        """The complete requests at the start of `buffer`: (name, key or "", offset after its last byte)."""
        ...

    def error_reply(self, request: bytes, text: str) -> bytes:
        """The protocol's own reply that answers `request` with an error."""
        ...
