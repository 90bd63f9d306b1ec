"""The work in the background: one task for each month, one that puts the months together."""

from celery import Task, chord, shared_task
from django.core.cache import cache

MONTHS = range(1, 13)
KEPT_S = 600
BUILDING_S = 60  # longer than a report takes: who asks meanwhile waits for the one that is being built


class SourceUnavailable(Exception):
    """Where the figures come from did not answer."""


def read_sales(year: int, month: int) -> int:
    """What was sold in a month: stands for a slow source that fails now and then."""
    if cache.get("source down for") and cache.decr("source down for") >= 0:
        raise SourceUnavailable
    return year * month


@shared_task(bind=True, max_retries=5)
def month_of(self: Task, year: int, month: int) -> int:
    """The sales of a month; tried again, a little later each time, while the source is down."""
    try:
        return read_sales(year, month)
    except SourceUnavailable as error:
        raise self.retry(exc=error, countdown=0.05 * 2**self.request.retries) from error


@shared_task
def put_together(sales: list[int], year: int) -> int:
    """Keep the report of a year, made of its months."""
    cache.set(f"report:{year}", {"year": year, "best": max(sales), "total": sum(sales)}, KEPT_S)
    cache.delete(f"building:{year}")
    return sum(sales)


def start_report(year: int) -> bool:
    """Have the report of a year built, unless that has begun; whether this call began it."""
    if not cache.add(f"building:{year}", True, BUILDING_S):
        return False
    chord(month_of.s(year, month) for month in MONTHS)(put_together.s(year))
    return True
