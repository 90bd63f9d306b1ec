"""Sorted sets: members in the order of a score."""

from minidist.engines.keyspace.registry import CommandTable

TABLE = CommandTable()
command = TABLE.command
