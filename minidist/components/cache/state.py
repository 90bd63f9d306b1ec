"""The cache's state: the RESP service with its limit and its figures. Pure; server.py gives it bytes and time.

What INFO tells is put together here, from what service and keyspace count; what it says of the process and the machine
comes through `facts`, which the node fills in.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from minidist.components.cache.config import CacheConfig
from minidist.engines.keyspace.commands import first_commands
from minidist.engines.keyspace.events import parse_events
from minidist.engines.keyspace.eviction import Policy
from minidist.engines.keyspace.keyspace import NO_LIMIT
from minidist.engines.keyspace.service import Service


@dataclass(slots=True)
class Facts:
    """What INFO tells about the process that the service runs in."""

    version: str = ""
    process_id: int = 0
    tcp_port: int = 0
    uptime_s: float = 0.0
    refused_connections: int = 0


class CacheService(Service):
    """All that clients of one cache share."""

    def __init__(self, config: CacheConfig, rng: random.Random) -> None:
        super().__init__(first_commands(), config.databases, rng)
        self.facts: Callable[[], Facts] = Facts
        self._last_rate = (0, 0)  # when INFO was asked last, and how many commands had run
        self.run_id = f"{rng.getrandbits(160):040x}"
        self.redis_version = config.redis_version
        self.configure(config)

    def configure(self, config: CacheConfig) -> None:
        """Take over options that can change at run time. A lower memory limit is reached in steps."""
        self.max_clients = config.max_clients
        self.notify(parse_events(config.notify))
        self.timing.configure(
            slower_than_us=config.slow_us, slow_entries=config.slow_entries, threshold_ms=config.latency_threshold_ms
        )
        self.scripts.limit_s = config.script_time_limit / 1000
        self.scripts.memory_bytes = config.script_memory
        self.keyspace.limit(config.max_memory or NO_LIMIT)
        self.most_tracked_keys = config.tracked_keys
        if self.tracking is not None:
            self.tracking.trim()
        if self.keyspace.evictor.policy.value != config.eviction:
            self.evict_by(Policy(config.eviction))

    @property
    def limit_bytes(self) -> int:
        """`maxmemory`: 0 where there is no limit."""
        return 0 if self.keyspace.limit_bytes == NO_LIMIT else self.keyspace.limit_bytes

    def forget_everything(self) -> None:
        """As new: keys and counters. Clients stay connected, outside transactions."""
        if self.strategy is not None:
            self.strategy.forget_everything()
        self.unpause()
        self.scripts.flush()
        if self.scripts.has_functions:
            self.scripts.functions.flush()
        self.access_log = None
        self.keyspace.flush()
        self.reset_statistics()
        self.timing.reset()
        self.keyspace.use_active_expiry(True)
        for session in self.sessions.values():
            if session.wait is not None:
                self.release(session, session.wait.block.nothing)
            session.unwatch()
            session.transaction = None
            session.database = self.keyspace.databases[0]
            session.regate()

    # --- INFO -------------------------------------------------------------------------------------------------------

    def information(self, now_ms: int) -> dict[str, dict[str, object]]:
        return {
            "Server": self._about_server(now_ms),
            "Clients": {
                "connected_clients": len(self.sessions),
                "maxclients": self.max_clients,
                "blocked_clients": self.waiting.count,
                "tracking_clients": 0 if self.tracking is None else self.tracking.clients,
                "pubsub_clients": sum(bool(each.subscriptions) for each in self.sessions.values()),
            },
            "Memory": self._about_memory(),
            "Persistence": {
                "loading": 0,
                "rdb_changes_since_last_save": 0,
                "aof_enabled": 0,
                "rdb_last_save_time": (self.saved_ms or self.started_ms) // 1000,
                **({} if self.snapshots is None else self.snapshots.information()),
            },
            "Stats": self._about_work(now_ms),
            **({} if self.strategy is None else {"Backing": self.strategy.information()}),
            "Replication": {"role": "master", "connected_slaves": 0, "master_repl_offset": 0},
            "Modules": {},
            "Commandstats": self._about_commands(),
            "Errorstats": {f"errorstat_{code}": f"count={count}" for code, count in sorted(self.errors.items())},
            "Cluster": {"cluster_enabled": 0},
            "Keyspace": self._about_databases(now_ms),
        }

    def _about_server(self, now_ms: int) -> dict[str, object]:
        facts = self.facts()
        return {
            "redis_version": self.redis_version,
            "minidist_version": facts.version,
            "redis_mode": "standalone",
            "arch_bits": 64,
            "process_id": facts.process_id,
            "run_id": self.run_id,
            "tcp_port": facts.tcp_port,
            "server_time_usec": now_ms * 1000,
            "uptime_in_seconds": int(facts.uptime_s),
            "uptime_in_days": int(facts.uptime_s) // 86_400,
        }

    def _about_memory(self) -> dict[str, object]:
        keyspace = self.keyspace
        limit_bytes = self.limit_bytes
        peak_bytes = max(keyspace.peak_bytes, keyspace.used_bytes)
        return {
            "used_memory": keyspace.used_bytes,
            "used_memory_human": human_size(keyspace.used_bytes),
            "used_memory_peak": peak_bytes,
            "used_memory_peak_human": human_size(peak_bytes),
            "maxmemory": limit_bytes,
            "maxmemory_human": human_size(limit_bytes),
            "maxmemory_policy": keyspace.evictor.policy.value,
            "mem_allocator": "python",
            **self.scripts.memory_figures(),
            "lazyfree_pending_objects": keyspace.garbage_keys,
        }

    def _about_work(self, now_ms: int) -> dict[str, object]:
        keyspace = self.keyspace
        commands_run = self.commands_run
        (before_ms, before), self._last_rate = self._last_rate, (now_ms, commands_run)
        per_s = max(commands_run - before, 0) * 1000 // max(now_ms - before_ms, 1)  # since INFO was asked last
        return {
            "total_connections_received": self.connections_made,
            "total_commands_processed": commands_run,
            "instantaneous_ops_per_sec": per_s,
            "rejected_connections": self.facts().refused_connections,
            "expired_keys": keyspace.expired_keys,
            "expired_subkeys": 0 if keyspace.field_expiry is None else keyspace.field_expiry.expired,
            "evicted_keys": keyspace.evicted_keys,
            "evicted_scripts": self.scripts.evicted,
            "keyspace_hits": keyspace.hits,
            "keyspace_misses": keyspace.misses,
            "pubsub_channels": len(self.publishing.channels),
            "pubsub_patterns": len(self.publishing.patterns.by_text),
            "pubsubshard_channels": len(self.publishing.shard_channels),
            **self._about_tracking(),
            "client_output_buffer_limit_disconnections": self.messages_cut_off,
            "total_error_replies": sum(self.errors.values()),
            "acl_access_denied_auth": self.denied["auth"],
            "acl_access_denied_cmd": self.denied["command"],
            "acl_access_denied_key": self.denied["key"],
            "acl_access_denied_channel": self.denied["channel"],
        }

    def _about_tracking(self) -> dict[str, object]:
        tracking = self.tracking
        return {
            "tracking_total_keys": 0 if tracking is None else tracking.keys,
            "tracking_total_items": 0 if tracking is None else tracking.items,
            "tracking_total_prefixes": 0 if tracking is None else len(tracking.prefixes),
        }

    def _about_commands(self) -> dict[str, object]:
        return {
            f"cmdstat_{each.name.lower().replace(' ', '|')}": (
                f"calls={each.calls},usec=0,usec_per_call=0.00,"
                f"rejected_calls={each.rejected_calls},failed_calls={each.failed_calls}"
            )
            for row in self.table.commands.values()
            for each in (row.subcommands.values() if row.is_container else (row,))
            if each.calls or each.rejected_calls
        }

    def _about_databases(self, now_ms: int) -> dict[str, object]:
        return {
            f"db{each.number}": f"keys={each.count},expires={each.volatile},avg_ttl=0"
            for each in self.keyspace.databases
            if each.count
        }


def human_size(size: int) -> str:
    """Bytes as Redis shows them: `1.50M`."""
    if size < 1024:
        return f"{size}B"
    amount = float(size)
    for unit in "KMGT":
        amount /= 1024
        if amount < 1024 or unit == "T":
            break
    return f"{amount:.2f}{unit}"
