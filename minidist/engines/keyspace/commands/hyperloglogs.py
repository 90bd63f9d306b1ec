"""HyperLogLog: how many different elements, nearly."""

from minidist.engines.keyspace.registry import CommandTable

TABLE = CommandTable()
command = TABLE.command
