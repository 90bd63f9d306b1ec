"""Wing and Gong's algorithm as published, with Lowe's memory and nothing else: small, obviously right, slow.

It tries operations in every order that real time allows, depth first, and remembers (operations done, state) that led
nowhere. For evidence of a few operations it gives the order that gets furthest, which is what people want to see; and
it is the oracle that search.py is tested against.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from minidist.engines.checking.models import NEVER, State, Step, apply
from minidist.engines.checking.verdict import Budget


@dataclass(frozen=True, slots=True)
class Attempt:
    """The longest legal order found, the states it begins with and ends in, and what is impossible there, yet due."""

    linearizable: bool
    initial: State
    order: list[Step]
    state: State
    impossible: list[Step]


def attempt(steps: Sequence[Step], budget: Budget, initial: tuple[State, ...] = (0,)) -> Attempt:
    """Look for an order, from one of the states, of all steps that must happen, with any others. Raises GaveUpError."""
    attempts = _Attempts(steps, budget)
    for state in initial:
        tried = attempts.find(state)
        if tried.linearizable:
            return tried
    return attempts.best


class _Attempts:
    def __init__(self, steps: Sequence[Step], budget: Budget) -> None:
        self._steps = sorted(steps, key=lambda step: step.began)
        self._budget = budget
        self._required = sum(1 << index for index, step in enumerate(self._steps) if step.must)
        self.best = Attempt(False, 0, [], 0, [])
        self._score = -1
        self._initial: State = 0

    def find(self, initial: State) -> Attempt:
        start = (0, initial)
        seen = {start: None}
        path: list[int] = []
        stack = [(start, iter(self._next(0)))]
        self._initial = initial
        self._keep(0, initial, path)
        while stack:
            (done, state), options = stack[-1]
            if done & self._required == self._required:
                return Attempt(True, initial, [self._steps[index] for index in path], state, [])
            for index in options:
                self._budget.spend()
                after = apply(state, self._steps[index])
                if after is None:
                    continue
                reached = (done | 1 << index, after)
                if reached not in seen:
                    self._budget.room(len(seen))
                    seen[reached] = None
                    path.append(index)
                    self._keep(*reached, path)
                    stack.append((reached, iter(self._next(reached[0]))))
                    break
            else:
                stack.pop()
                if path:
                    path.pop()
        return self.best

    def _next(self, done: int) -> list[int]:
        """Steps that may take effect now: begun before any that must still come ended, ended after all begun so far."""
        steps = self._steps
        left = [index for index in range(len(steps)) if not done >> index & 1]
        horizon = min((steps[index].ended for index in left if steps[index].must), default=NEVER)
        now = max((steps[index].began for index in range(len(steps)) if done >> index & 1), default=0)
        return [index for index in left if steps[index].began < horizon and steps[index].ended > now]

    def _keep(self, done: int, state: State, path: list[int]) -> None:
        """Remember the order that did the most of what must be done."""
        order = [self._steps[index] for index in path]
        score = sum(step.must for step in order)
        if score > self._score:
            impossible = [
                self._steps[index]
                for index in self._next(done)
                if self._steps[index].must and apply(state, self._steps[index]) is None
            ]
            self.best, self._score = Attempt(False, self._initial, order, state, impossible), score
