"""A total that several holders share, handed out in slices so that the sum never passes it.

The owner of a limit (at most so many clients) keeps a `LeasePool`; each worker process holds a part and works within
it without asking. Asking costs a message, so a slice is handed out at a time; when the pool runs dry the owner recalls
what holders do not use before it says no, so that nobody is refused while any of the total is free.
"""


class LeasePool:
    """The owner's books. Holders are numbered by the caller."""

    def __init__(self, total: int, slice_size: int) -> None:
        self.total = total
        self.slice_size = max(1, slice_size)
        self.held: dict[int, int] = {}

    @property
    def free(self) -> int:
        """What is not handed out; negative after the total was lowered below what is held."""
        return self.total - sum(self.held.values())

    def grant(self, holder: int, wanted: int) -> int:
        """Hand out `wanted`, rounded up to whole slices, as far as there is; the result is what the holder got."""
        slices = -(-max(wanted, 1) // self.slice_size)
        granted = max(0, min(slices * self.slice_size, self.free))
        self.held[holder] = self.held.get(holder, 0) + granted
        return granted

    def give_back(self, holder: int, amount: int) -> None:
        """The holder does not use so much of what it has."""
        self.held[holder] = max(0, self.held.get(holder, 0) - amount)

    def drop(self, holder: int) -> None:
        """The holder is gone with everything it had."""
        self.held.pop(holder, None)

    def resize(self, total: int) -> int:
        """A new total; the result is how much has to be recalled before it holds."""
        self.total = total
        return max(0, -self.free)
