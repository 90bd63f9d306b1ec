"""Redis' data model as a pure engine: keys, lifetimes, memory, commands, transactions. Shared by cache and kv.

    bytes ── wire.resp ──► commands ──► Service.run(session, commands, now_ms) ──► replies
                                            │  one table of plain functions (registry.py, commands/)
                                            ▼
                       Keyspace ── 16 databases ── 16,384 tables each, one per hash slot ── entries

Everything that takes long is cut by hash slot: no growth of a dict, scan step, flush or expiry touches more than one
small table at a time (database.py). Nothing here reads a clock or does I/O: time is an argument, and what the caller
must do (close a client, call again at a time) is returned or left as data (service.py).
"""
