"""SLOWLOG, LATENCY and MONITOR."""

from minidist.engines.keyspace.registry import CommandTable

TABLE = CommandTable()
command = TABLE.command
