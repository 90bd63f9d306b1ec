"""What holds data. Pure: no sockets, files, threads, clocks, randomness or asyncio."""
