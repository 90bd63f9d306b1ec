"""EVAL and SCRIPT: Lua scripts."""

from minidist.engines.keyspace.registry import CommandTable

TABLE = CommandTable()
command = TABLE.command
