"""SORT and SORT_RO."""

from minidist.engines.keyspace.registry import CommandTable

TABLE = CommandTable()
command = TABLE.command
