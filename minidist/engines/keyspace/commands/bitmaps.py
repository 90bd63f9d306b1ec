"""Bitmaps: strings looked at bit by bit."""

from minidist.engines.keyspace.registry import CommandTable

TABLE = CommandTable()
command = TABLE.command
