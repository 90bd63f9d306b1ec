"""What a running cache loads when it has time: all modules of commands.

Importing this module imports them at once, for those that have no later: the fork server, so that nodes share them, and
the simulation, where a node that reads files on the way would be reading the real disk.
"""

from minidist.engines.keyspace.commands import all_commands

all_commands()
