"""The commands by subject. Each module fills a table of its own; `all_commands` puts them together.

A node starts with `first_commands`, what nearly every client needs, and loads the rest when it is running.
"""

from functools import cache, partial
from importlib import import_module

from minidist.engines.keyspace.registry import CommandTable

# In the order of the reference page.
MODULES = (
    "strings", "counters", "lcs", "bitmaps", "bitfields", "keys", "expiry", "sorting", "dumps", "lists", "list_moves",
    "hashes", "hash_ttl", "sets", "sortedsets", "sortedset_ranges", "sortedset_pops", "sortedset_combinations", "geo",
    "georadius", "streams", "stream_reads", "stream_groups", "stream_info", "hyperloglogs", "transactions",
    "publishing", "scripting", "functions", "connection", "clients", "introspection", "databases", "server",
    "monitoring", "acl", "standalone",
)  # fmt: skip
FIRST = ("strings", "counters", "keys", "expiry", "transactions", "connection")
# The others in the order in which clients are likely to need them.
SOON = ("clients", "server", "databases", "introspection", "lists", "hashes", "sets", "sortedsets")


def module_table(name: str) -> CommandTable:
    """The table of one module."""
    table: CommandTable = import_module(f"{__name__}.{name}").TABLE
    return table


@cache
def all_commands() -> CommandTable:
    """The whole command table."""
    table = CommandTable()
    for name in MODULES:
        table.include(module_table(name))
    return table


@cache
def first_commands() -> CommandTable:
    """The table that a node starts with; the other modules are pending."""
    table = CommandTable()
    for name in FIRST:
        table.include(module_table(name))
    later = [name for name in MODULES if name not in FIRST and name not in SOON]
    table.pending = [partial(module_table, name) for name in (*SOON, *later)]
    return table
