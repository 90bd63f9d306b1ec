"""The highest rate a server sustains: doubling steps until one fails, then halving the gap.

A rate is **held** when 99 % of what was offered in its trial was answered well before the trial was over, no more than
1 % failed, no arrival was skipped, and the objectives (`--slo`), if any, were kept. Answers that are on their way at
the end are allowed for as far as they would be without a queue: at the median latency with which the first trial began.

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
    """`rate` is the next rate to try, None when the search is over; `best` is the highest that held so far, if any."""

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


def judge(report: Report, objectives: Sequence[Limit], usual_s: float) -> str:
    """Why the rate of this report was not held; empty when it was. `usual_s`: the latency without a queue."""
    if skipped := report.total.errors.get("skipped"):
        return f"{skipped} arrivals skipped"
    offered, in_time = report.total.offered, report.between(0, report.window_s).ok
    if report.total.failed > offered * (1 - HELD):
        return f"{report.total.failed / offered:.1%} of it failed"
    on_their_way = 1 + report.offered_per_s * usual_s
    if in_time + on_their_way < offered * HELD:
        return f"achieved {in_time / offered:.1%} of it"
    for verdict in (limit.verdict(report.total) for limit in objectives):
        if not verdict.kept:
            return str(verdict)
    return ""


def _usual_s(first: Report) -> float:
    return (first.between(0, first.window_s / 10).percentile_ms(50) or 0.0) / 1000


async def find(
    plan: Plan,
    objectives: Sequence[Limit] = (),
    *,
    on_try: Callable[[Plan], None] | None = None,
    on_trial: Callable[[Trial], None] | None = None,
    on_tick: OnTick | None = None,
    stop: asyncio.Event | None = None,
    apart: bool = False,
) -> Report:
    """The report of the highest rate held, with all `trials`; when none held, that of the lowest rate tried.

    `plan` gives everything but the rate; its ramp, if any, says where to search; its duration is that of one trial.
    """
    first, last = plan.ramp or (plan.rate or FIRST_PER_S, LAST_PER_S)
    search = Search(first or FIRST_PER_S, last)
    trials: list[Trial] = []
    interrupted = False
    while search.rate is not None and not interrupted:
        attempt = dataclasses.replace(plan, rate=search.rate, ramp=None)
        if on_try:
            on_try(attempt)
        report = await run(attempt, on_tick=on_tick, stop=stop, apart=apart)
        interrupted = report.interrupted
        if interrupted and trials:
            break  # a trial cut short proves nothing, but something must be reported
        reason = judge(report, objectives, _usual_s(trials[0].report if trials else report))
        trial = Trial(rate=search.rate, held=not reason, reason=reason, report=report)
        trials.append(trial)
        if on_trial:
            on_trial(trial)
        if trial.held or sum(1 for each in trials if each.rate == trial.rate) >= TRIES:
            search.verdict(trial.held)
    held = [each for each in trials if each.held]
    chosen = max(held, key=lambda each: each.rate) if held else min(trials, key=lambda each: each.rate)
    return dataclasses.replace(chosen.report, trials=trials, interrupted=interrupted)


def verdict_text(report: Report) -> str:
    """What the search found, in one line."""
    held = max((each.rate for each in report.trials if each.held), default=None)
    failures = [each for each in report.trials if not each.held and each.rate > (held or 0)]
    if held is None:
        lowest = min(each.rate for each in report.trials)
        return f"saturation: below {rate_text(lowest)}, the lowest rate tried"
    if not failures:
        return f"saturation: above {rate_text(held)}, the highest rate tried"
    failed = min(failures, key=lambda each: each.rate)
    client = ", but there the client was the limit" if failed.report.warnings() else ""
    return f"saturation: {rate_text(held)} held, {rate_text(failed.rate)} did not{client}"
