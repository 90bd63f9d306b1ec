"""Lua scripts inside the keyspace: the interpreter and its walls, values between Lua and RESP, libraries."""
