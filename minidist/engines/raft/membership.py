"""Who takes part in a group, and when enough of them agree.

While voters change, a group is in joint consensus: `outgoing` are the voters of before, and whatever needs a quorum
needs one of both. Learners get the log and have no vote; `learners_next` are voters of before who will be learners.

Source: Ongaro, "Consensus: Bridging Theory and Practice", 2014, chapter 4.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum


class Verdict(Enum):
    """How a vote stands."""

    OPEN = "open"
    WON = "won"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Membership:
    """Names, each part sorted and without repetition."""

    voters: tuple[str, ...]
    outgoing: tuple[str, ...] = ()
    learners: tuple[str, ...] = ()
    learners_next: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for names in (self.voters, self.outgoing, self.learners, self.learners_next):
            assert list(names) == sorted(set(names)), names
        assert self.voters, "a group has a voter"
        assert not {*self.learners, *self.learners_next} & {*self.voters}, "a learner has no vote"

    @classmethod
    def of(cls, voters: Collection[str], learners: Collection[str] = ()) -> "Membership":
        return cls(tuple(sorted(set(voters))), (), tuple(sorted(set(learners))))

    @property
    def joint(self) -> bool:
        return bool(self.outgoing)

    @property
    def members(self) -> tuple[str, ...]:
        """All that get the log, in order."""
        return tuple(sorted({*self.voters, *self.outgoing, *self.learners}))

    def votes(self, name: str) -> bool:
        return name in self.voters or name in self.outgoing

    @property
    def _halves(self) -> tuple[tuple[str, ...], ...]:
        return (self.voters, self.outgoing) if self.outgoing else (self.voters,)

    def has_quorum(self, names: Collection[str]) -> bool:
        """Whether these are a majority, of both halves while the group is joint."""
        return all(sum(name in names for name in half) > len(half) // 2 for half in self._halves)

    def verdict(self, answers: Mapping[str, bool]) -> Verdict:
        """How a vote stands, given the answers that came."""
        if self.has_quorum([name for name, granted in answers.items() if granted]):
            return Verdict.WON
        refused = [name for name, granted in answers.items() if not granted]
        hopeless = any(sum(name not in refused for name in half) <= len(half) // 2 for half in self._halves)
        return Verdict.LOST if hopeless else Verdict.OPEN

    def reached(self, values: Mapping[str, int]) -> int:
        """The largest value that a quorum has reached; who is not named is at 0."""
        halves = [sorted((values.get(name, 0) for name in half), reverse=True) for half in self._halves]
        return min(half[len(half) // 2] for half in halves)

    # --- changes ----------------------------------------------------------------------------------------------------

    def entering(self, target: "Membership") -> "Membership":
        """The joint membership on the way to `target`."""
        now, later = (
            tuple(name for name in target.learners if (name in self.voters) is voted) for voted in (False, True)
        )
        return Membership(target.voters, self.voters, now, later)

    def leaving(self) -> "Membership":
        """What follows a joint membership."""
        return Membership(self.voters, (), tuple(sorted({*self.learners, *self.learners_next})))
