"""The cache node: Redis' protocol over a keyspace with a memory bound. README.md says what it promises."""
