"""The cache's metrics, made when somebody asks."""

from minidist.components.cache.state import CacheService
from minidist.runtime.metrics import Family, Histogram, counter, gauge


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
    ]


def labelled(name: str, kind: str, summary: str, label: str, values: dict[str, int]) -> Family:
    """A family with one sample for each value of one label."""
    samples = [({label: value}, count) for value, count in values.items()]
    return Family(name, "counter" if kind == "counter" else "gauge", summary, samples)
