"""Cache strategies: read-through, write-through, write-behind before a backing store. Pure; loaded when asked for."""
