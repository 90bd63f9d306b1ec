"""The commands by subject. Each module fills a table of its own; `all_commands` puts them together."""

from functools import cache

from minidist.engines.keyspace.registry import CommandTable


@cache
def all_commands() -> CommandTable:
    """The whole command table, in the order of the reference page."""
    from minidist.engines.keyspace.commands import (
        access,
        bitfields,
        bitmaps,
        clients,
        connection,
        counters,
        databases,
        dumps,
        expiry,
        hashes,
        hyperloglogs,
        introspection,
        keys,
        lcs,
        list_moves,
        lists,
        monitoring,
        publishing,
        scripting,
        server,
        sets,
        sortedset_combinations,
        sortedset_pops,
        sortedset_ranges,
        sortedsets,
        sorting,
        stream_groups,
        stream_info,
        stream_reads,
        streams,
        strings,
        transactions,
    )

    table = CommandTable()
    for module in (
        strings,
        counters,
        lcs,
        bitmaps,
        bitfields,
        keys,
        expiry,
        sorting,
        dumps,
        lists,
        list_moves,
        hashes,
        sets,
        sortedsets,
        sortedset_ranges,
        sortedset_pops,
        sortedset_combinations,
        streams,
        stream_reads,
        stream_groups,
        stream_info,
        hyperloglogs,
        transactions,
        publishing,
        scripting,
        connection,
        clients,
        access,
        introspection,
        databases,
        server,
        monitoring,
    ):
        table.include(module.TABLE)
    return table
