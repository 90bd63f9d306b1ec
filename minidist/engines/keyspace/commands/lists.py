"""Lists, and the commands that wait for an element."""

from minidist.engines.keyspace.registry import CommandTable

TABLE = CommandTable()
command = TABLE.command
