"""DUMP and RESTORE: values in Redis' own serialisation."""

from minidist.engines.keyspace.registry import CommandTable

TABLE = CommandTable()
command = TABLE.command
