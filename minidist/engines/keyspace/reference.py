"""The reference page of commands: what the table has, and what Redis 7.2 has beyond it.

    python -c "from minidist.engines.keyspace.reference import page; print(page(), end='')" > docs/commands-cache.md

The page is generated, so it cannot promise anything that is not there; a test holds the page in docs/ to be current.
"""

from minidist.engines.keyspace.commands import all_commands
from minidist.engines.keyspace.registry import Command

HEAD = """# Commands of the cache

Generated from the command table. Replies, error texts and arity are those of Redis 7.2; `since` is the Redis version
that introduced a command.
"""

# Every command of Redis 7.2 by group; CONTAINER|SUBCOMMAND for those that have subcommands.
REDIS_72_TEXT = """
string: APPEND DECR DECRBY GET GETDEL GETEX GETRANGE GETSET INCR INCRBY INCRBYFLOAT LCS MGET MSET MSETNX PSETEX SET
SETEX SETNX SETRANGE STRLEN SUBSTR
bitmap: BITCOUNT BITFIELD BITFIELD_RO BITOP BITPOS GETBIT SETBIT
generic: COPY DEL DUMP EXISTS EXPIRE EXPIREAT EXPIRETIME KEYS MIGRATE MOVE OBJECT|ENCODING OBJECT|FREQ
OBJECT|IDLETIME OBJECT|REFCOUNT PERSIST PEXPIRE PEXPIREAT PEXPIRETIME PTTL RANDOMKEY RENAME RENAMENX RESTORE SCAN
SORT SORT_RO TOUCH TTL TYPE UNLINK WAIT WAITAOF
list: BLMOVE BLMPOP BLPOP BRPOP BRPOPLPUSH LINDEX LINSERT LLEN LMOVE LMPOP LPOP LPOS LPUSH LPUSHX LRANGE LREM LSET
LTRIM RPOP RPOPLPUSH RPUSH RPUSHX
hash: HDEL HEXISTS HGET HGETALL HINCRBY HINCRBYFLOAT HKEYS HLEN HMGET HMSET HRANDFIELD HSCAN HSET HSETNX HSTRLEN
HVALS
set: SADD SCARD SDIFF SDIFFSTORE SINTER SINTERCARD SINTERSTORE SISMEMBER SMEMBERS SMISMEMBER SMOVE SPOP SRANDMEMBER
SREM SSCAN SUNION SUNIONSTORE
sorted-set: BZMPOP BZPOPMAX BZPOPMIN ZADD ZCARD ZCOUNT ZDIFF ZDIFFSTORE ZINCRBY ZINTER ZINTERCARD ZINTERSTORE
ZLEXCOUNT ZMPOP ZMSCORE ZPOPMAX ZPOPMIN ZRANDMEMBER ZRANGE ZRANGEBYLEX ZRANGEBYSCORE ZRANGESTORE ZRANK ZREM
ZREMRANGEBYLEX ZREMRANGEBYRANK ZREMRANGEBYSCORE ZREVRANGE ZREVRANGEBYLEX ZREVRANGEBYSCORE ZREVRANK ZSCAN ZSCORE
ZUNION ZUNIONSTORE
stream: XACK XADD XAUTOCLAIM XCLAIM XDEL XGROUP|CREATE XGROUP|CREATECONSUMER XGROUP|DELCONSUMER XGROUP|DESTROY
XGROUP|SETID XINFO|CONSUMERS XINFO|GROUPS XINFO|STREAM XLEN XPENDING XRANGE XREAD XREADGROUP XREVRANGE XSETID XTRIM
hyperloglog: PFADD PFCOUNT PFDEBUG PFMERGE PFSELFTEST
geo: GEOADD GEODIST GEOHASH GEOPOS GEORADIUS GEORADIUSBYMEMBER GEORADIUSBYMEMBER_RO GEORADIUS_RO GEOSEARCH
GEOSEARCHSTORE
transactions: DISCARD EXEC MULTI UNWATCH WATCH
connection: AUTH CLIENT|CACHING CLIENT|GETNAME CLIENT|GETREDIR CLIENT|ID CLIENT|INFO CLIENT|KILL CLIENT|LIST
CLIENT|NO-EVICT CLIENT|NO-TOUCH CLIENT|PAUSE CLIENT|REPLY CLIENT|SETINFO CLIENT|SETNAME CLIENT|TRACKING
CLIENT|TRACKINGINFO CLIENT|UNBLOCK CLIENT|UNPAUSE ECHO HELLO PING QUIT RESET SELECT
pubsub: PSUBSCRIBE PUBLISH PUBSUB|CHANNELS PUBSUB|NUMPAT PUBSUB|NUMSUB PUBSUB|SHARDCHANNELS PUBSUB|SHARDNUMSUB
PUNSUBSCRIBE SPUBLISH SSUBSCRIBE SUBSCRIBE SUNSUBSCRIBE UNSUBSCRIBE
scripting: EVAL EVALSHA EVALSHA_RO EVAL_RO FCALL FCALL_RO FUNCTION|DELETE FUNCTION|DUMP FUNCTION|FLUSH FUNCTION|KILL
FUNCTION|LIST FUNCTION|LOAD FUNCTION|RESTORE FUNCTION|STATS SCRIPT|DEBUG SCRIPT|EXISTS SCRIPT|FLUSH SCRIPT|KILL
SCRIPT|LOAD
server: ACL|CAT ACL|DELUSER ACL|DRYRUN ACL|GENPASS ACL|GETUSER ACL|LIST ACL|LOAD ACL|LOG ACL|SAVE ACL|SETUSER
ACL|USERS ACL|WHOAMI BGREWRITEAOF BGSAVE COMMAND|COUNT COMMAND|DOCS COMMAND|GETKEYS COMMAND|GETKEYSANDFLAGS
COMMAND|INFO COMMAND|LIST CONFIG|GET CONFIG|RESETSTAT CONFIG|REWRITE CONFIG|SET DBSIZE DEBUG FAILOVER FLUSHALL
FLUSHDB INFO LASTSAVE LATENCY|DOCTOR LATENCY|GRAPH LATENCY|HISTOGRAM LATENCY|HISTORY LATENCY|LATEST LATENCY|RESET
LOLWUT MEMORY|DOCTOR MEMORY|MALLOC-STATS MEMORY|PURGE MEMORY|STATS MEMORY|USAGE MODULE|LIST MODULE|LOAD
MODULE|LOADEX MODULE|UNLOAD MONITOR PSYNC REPLCONF REPLICAOF RESTORE-ASKING ROLE SAVE SHUTDOWN SLAVEOF SLOWLOG|GET
SLOWLOG|LEN SLOWLOG|RESET SWAPDB SYNC TIME
cluster: ASKING CLUSTER READONLY READWRITE
"""


# What is here from later versions of Redis.
SINCE_72_TEXT = """
hash: HEXPIRE HEXPIREAT HEXPIRETIME HGETDEL HGETEX HPERSIST HPEXPIRE HPEXPIREAT HPEXPIRETIME HPTTL HSETEX HTTL
"""


def redis_72() -> dict[str, list[str]]:
    """The commands of Redis 7.2 by group, subcommands as `CLIENT KILL`."""
    return commands_of(REDIS_72_TEXT)


def commands_of(text: str) -> dict[str, list[str]]:
    """By group, from a text as those above."""
    groups: dict[str, list[str]] = {}
    for word in text.split():
        if word.endswith(":"):
            names = groups[word[:-1]] = []
        else:
            names.append(word.replace("|", " "))
    return groups


def missing() -> dict[str, list[str]]:
    """By group, the commands of Redis 7.2 that the table lacks; a container as one where nothing of it is there."""
    rows = all_commands().commands
    present = {each.name for row in rows.values() for each in (row, *row.subcommands.values())}
    found = {}
    for group, names in redis_72().items():
        absent = [name if name.split()[0] in rows else name.split()[0] for name in names if name not in present]
        if absent:
            found[group] = list(dict.fromkeys(absent))
    return found


def page() -> str:
    """The whole page as Markdown."""
    groups: dict[str, list[Command]] = {}
    for row in all_commands().commands.values():
        groups.setdefault(row.group, []).append(row)
    parts = [HEAD]
    for group, rows in groups.items():
        parts.append(f"\n## {group.capitalize()}\n\n| command | arity | since | what it does |\n|---|---|---|---|\n")
        for row in sorted(rows, key=lambda each: each.name):
            shown = row.subcommands.values() if row.subcommands else (row,)
            parts += [f"| {each.name} | {each.arity} | {each.since} | {each.summary} |\n" for each in shown]
    parts.append("\n## Not there\n\nCommands of Redis 7.2 that this version lacks; they are answered as unknown.\n\n")
    parts += [f"- {group}: {', '.join(names)}\n" for group, names in missing().items()]
    return "".join(parts)
