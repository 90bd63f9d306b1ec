"""What stands behind a cache: another server, or a file. Loaded with `--backing` only.

places.py reads the option, driver.py carries the requests of the strategy (engines/caching) to a store and the answers
back, and each kind of store has a file. A store is a `BackingStore` (store.py): it raises `BackingError`, nothing else.
"""
