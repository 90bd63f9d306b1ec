"""The highest rate a server sustains: doubling steps until one fails, then halving the gap.

A rate is **held** when, over the second half of its trial, good answers came at 99 % of the offered rate or more, no
arrival was skipped, and the objectives (`--slo`), if any, were kept. The first half is left out so that neither
start-up nor the answers still under way count; a queue that grows shows in the second.

`Search` is the plain algorithm: rates out, verdicts in. `find` runs a trial for each.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Sequence

from minidist.load.plan import Plan
from minidist.load.report import Report, Trial, rate_text
from minidist.load.runner import OnTick, run
from minidist.load.slo import Limit

#: Achieved against offered rate from which on a rate counts as held.
HELD = 0.99
#: The search ends when the answer is known to this share.
PRECISION = 0.05
#: Without --ramp: where the search begins and ends, in requests per second.
FIRST_PER_S, LAST_PER_S = 100.0, 1_000_000.0
#: A rate that failed is tried a second time before it is believed, for a short stall of the machine fails any.
TRIES = 2


class Search:
    """`rate` is the next rate to try, None when the search is over; then `best` is the highest that held, if any did."""

    def __init__(self, first: float = FIRST_PER_S, last: float = LAST_PER_S, precision: float = PRECISION) -> None:
        self._first, self._last, self._precision = first, last, precision
        self.best: float | None = None
        self.worst: float | None = None
        self.rate: float | None = first

    def verdict(self, held: bool) -> None:
        """About the current `rate`."""
        assert self.rate is not None
        if held:
            self.best = self.rate
        else:
            self.worst = self.rate
        self.rate = self._next()

    def _next(self) -> float | None:
        if self.best is None:
            # Not even the first: look below, down to a hundredth of it.
            assert self.worst is not None
            return self.worst / 2 if self.worst > self._first / 64 else None
        if self.worst is None:
            return min(self.best * 2, self._last) if self.best < self._last else None
        if self.worst <= self.best * (1 + self._precision):
            return None
        return (self.best + self.worst) / 2


def judge(report: Report, objectives: Sequence[Limit]) -> str:
    """Why the rate of this report was not held; empty when it was."""
    second_half = report.between(report.window_s / 2, report.window_s)
    if skipped := report.total.errors.get("skipped"):
        return f"{skipped} arrivals skipped"
    share = second_half.ok / second_half.offered if second_half.offered else 0.0
    # Counting at two moments is uncertain by the arrivals of one wake-up; below 100 of them that is more than 1 %.
    if share < HELD and second_half.offered - second_half.ok > 1:
        return f"achieved {share:.1%} of it"
    for verdict in (limit.verdict(report.total) for limit in objectives):
        if not verdict.kept:
            return str(verdict)
    return ""


async def find(
    plan: Plan,
    objectives: Sequence[Limit] = (),
    *,
    on_trial: Callable[[Trial], None] | None = None,
    on_tick: OnTick | None = None,
    stop: asyncio.Event | None = None,
) -> Report:
    """The report of the highest rate held, with all `trials`; when none held, that of the lowest rate tried.

    `plan` gives everything but the rate; its ramp, if any, says where to search; its duration is that of one trial.
    """
    first, last = plan.ramp or (plan.rate or FIRST_PER_S, LAST_PER_S)
    search = Search(first or FIRST_PER_S, last)
    trials: list[Trial] = []
    while search.rate is not None and not (stop and stop.is_set()):
        trial = await _try(
            dataclasses.replace(plan, rate=search.rate, ramp=None, concurrency=None), objectives, on_tick, stop
        )
        if trial.report.interrupted:
            break
        repeated = sum(1 for each in trials if each.rate == trial.rate) + 1
        trials.append(trial)
        if on_trial:
            on_trial(trial)
        if trial.held or repeated >= TRIES:
            search.verdict(trial.held)
    if not trials:
        return dataclasses.replace(trial.report, trials=[trial])
    held = [each for each in trials if each.held]
    chosen = max(held, key=lambda each: each.rate) if held else min(trials, key=lambda each: each.rate)
    return dataclasses.replace(chosen.report, trials=trials, interrupted=trial.report.interrupted)


async def _try(plan: Plan, objectives: Sequence[Limit], on_tick: OnTick | None, stop: asyncio.Event | None) -> Trial:
    report = await run(plan, on_tick=on_tick, stop=stop)
    reason = judge(report, objectives)
    return Trial(rate=plan.rate or 0.0, held=not reason, reason=reason, report=report)


def verdict_text(report: Report) -> str:
    """What the search found, in one line."""
    held = max((each.rate for each in report.trials if each.held), default=None)
    failed = min((each.rate for each in report.trials if not each.held and each.rate > (held or 0)), default=None)
    if held is None:
        lowest = min(each.rate for each in report.trials)
        return f"saturation: below {rate_text(lowest)}, the lowest rate tried"
    if failed is None:
        return f"saturation: above {rate_text(held)}, the highest rate tried"
    return f"saturation: {rate_text(held)} held, {rate_text(failed)} did not"
