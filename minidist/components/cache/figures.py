"""The cache's metrics, made when somebody asks."""

from typing import TYPE_CHECKING

from minidist.components.cache.state import CacheService
from minidist.runtime.metrics import Family, Histogram, counter, gauge

if TYPE_CHECKING:
    from minidist.engines.caching.strategy import Strategy


def families(service: CacheService, service_time: Histogram) -> list[Family]:
    """What `GET /metrics` shows of a cache, beyond what every node has."""
    keyspace = service.keyspace
    rows = [row for row in service.table.commands.values() if row.calls]
    shown = [each for each in keyspace.databases if each.count or not each.number]
    return [
        labelled(
            "cache_commands_total", "counter", "Commands run.", "command", {r.name.lower(): r.calls for r in rows}
        ),
        labelled("cache_errors_total", "counter", "Error replies by code.", "code", service.errors),
        Family(
            "cache_service_seconds",
            "histogram",
            "From read to write, of what a client sent at once.",
            [({}, service_time)],
        ),
        labelled("cache_keys", "gauge", "Keys by database.", "db", {str(each.number): each.count for each in shown}),
        gauge("cache_used_bytes", "Memory of keys and values, as accounted.", keyspace.used_bytes),
        gauge("cache_limit_bytes", "Memory limit; 0 for none.", service.limit_bytes),
        gauge("cache_unfreed_keys", "Flushed keys whose memory is not freed yet.", keyspace.garbage_keys),
        counter("cache_hits_total", "Reads that found their key.", keyspace.hits),
        counter("cache_misses_total", "Reads that did not.", keyspace.misses),
        counter("cache_expired_total", "Keys removed because they expired.", keyspace.expired_keys),
        gauge("cache_channels", "Channels that somebody listens to.", len(service.publishing.channels)),
        gauge("cache_patterns", "Patterns that somebody listens to.", len(service.publishing.patterns.by_text)),
        counter("cache_cut_off_total", "Subscribers closed because they did not read.", service.messages_cut_off),
        counter("cache_evicted_total", "Keys removed to make room.", keyspace.evicted_keys),
        *([] if service.strategy is None else backing_families(service.strategy)),
    ]


def backing_families(strategy: "Strategy") -> list[Family]:
    """What a cache with a backing store shows."""
    loads, through, behind = strategy.loads, strategy.through, strategy.behind
    shown = [
        counter("cache_backing_loads_total", "Loads from the backing store.", loads.started),
        counter("cache_backing_loads_failed_total", "Loads that failed.", strategy.failed_loads),
        counter("cache_backing_loads_revoked_total", "Loads overtaken by a change of their key.", loads.revoked),
        counter("cache_backing_absent_hits_total", "Reads of keys known to be missing.", loads.absent_hits),
        counter("cache_backing_stale_hits_total", "Reads of keys past their lifetime.", loads.stale_hits),
        gauge("cache_backing_absent_keys", "Keys known to be missing.", loads.absent_keys),
        gauge("cache_backing_loading", "Loads that have not ended.", strategy.loading),
    ]
    if through is not None:
        shown += [
            counter("cache_backing_writes_total", "Writes that the backing store has taken.", through.written),
            counter("cache_backing_writes_failed_total", "Writes that it has not.", through.failed),
            gauge("cache_backing_writing", "Keys with a write under way.", len(through)),
        ]
    if behind is not None:
        lag_ms = behind.lag_now_ms(strategy.loop_ms())
        shown += [
            counter("cache_backing_writes_total", "Writes that the backing store has taken.", behind.written),
            counter("cache_backing_coalesced_total", "Writes replaced by a newer one of their key.", behind.coalesced),
            counter("cache_backing_retries_total", "Writes that failed and are sent again.", behind.retries),
            gauge("cache_backing_queue_keys", "Keys that the backing store does not have yet.", len(behind)),
            gauge("cache_backing_queue_bytes", "Memory of the writes that wait.", behind.queued_bytes),
            gauge("cache_backing_queue_lag_seconds", "How long the oldest of them waits.", lag_ms / 1000),
        ]
    return shown


def labelled(name: str, kind: str, summary: str, label: str, values: dict[str, int]) -> Family:
    """A family with one sample for each value of one label."""
    samples = [({label: value}, count) for value, count in values.items()]
    return Family(name, "counter" if kind == "counter" else "gauge", summary, samples)
