"""RESP pub/sub: channels, patterns, and keyspace notifications."""

from minidist.engines.keyspace.registry import CommandTable

TABLE = CommandTable()
command = TABLE.command
