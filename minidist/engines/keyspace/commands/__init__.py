"""The commands by subject. Each module fills a table of its own; `all_commands` puts them together."""

from functools import cache

from minidist.engines.keyspace.registry import CommandTable


@cache
def all_commands() -> CommandTable:
    """The whole command table, in the order of the reference page."""
    from minidist.engines.keyspace.commands import (
        clients,
        connection,
        counters,
        databases,
        expiry,
        introspection,
        keys,
        lcs,
        server,
        strings,
        transactions,
    )

    table = CommandTable()
    for module in (
        strings,
        counters,
        keys,
        lcs,
        expiry,
        databases,
        transactions,
        connection,
        clients,
        introspection,
        server,
    ):
        table.include(module.TABLE)
    return table
