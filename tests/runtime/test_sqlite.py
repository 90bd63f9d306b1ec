"""SQLite on a thread of its own: shared commits, failures that strike one job, locks, closing."""

import asyncio
import sqlite3
import threading

import pytest

from minidist.runtime.sqlite import SqliteError, SqliteFile


@pytest.fixture
async def file(tmp_path):
    opened = await SqliteFile.open(str(tmp_path / "f.db"), busy_ms=20)
    await opened.run(lambda connection: connection.execute("CREATE TABLE t (n INTEGER CHECK (n >= 0))"), writes=True)
    yield opened
    await opened.close()


def insert(number):
    return lambda connection: connection.execute("INSERT INTO t VALUES (?)", [number]).rowcount


def numbers(connection):
    return [number for (number,) in connection.execute("SELECT n FROM t ORDER BY n")]


async def test_a_job_that_fails_is_rolled_back_alone(file):
    def half(connection):
        connection.execute("INSERT INTO t VALUES (100)")
        connection.execute("INSERT INTO t VALUES (-1)")

    jobs = [file.run(work, writes=True) for work in (insert(1), half, insert(2))]
    outcomes = await asyncio.gather(*jobs, return_exceptions=True)
    assert outcomes[::2] == [1, 1]
    assert isinstance(outcomes[1], SqliteError)
    assert await file.run(numbers, writes=False) == [1, 2]
    assert file.outstanding == 0


async def test_many_jobs_share_a_commit(file):
    commits = []
    await file.run(lambda connection: connection.set_trace_callback(commits.append), writes=False)
    await asyncio.gather(*(file.run(insert(n), writes=True) for n in range(100)))
    assert await file.run(numbers, writes=False) == list(range(100))
    assert commits.count("COMMIT") <= 2


async def test_a_lock_of_somebody_else(file, tmp_path):
    other = sqlite3.connect(tmp_path / "f.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    reads, writes = file.run(numbers, writes=False), file.run(insert(1), writes=True)
    assert await reads == []
    with pytest.raises(SqliteError, match="locked"):
        await writes
    other.execute("ROLLBACK")
    other.close()
    assert await file.run(insert(2), writes=True) == 1


async def test_closing_does_what_was_asked_for(tmp_path):
    file = await SqliteFile.open(str(tmp_path / "g.db"), busy_ms=20)
    made = file.run(lambda connection: connection.execute("CREATE TABLE t (n)"), writes=True)
    await file.close()
    await made
    assert not [thread for thread in threading.enumerate() if thread.name == "disk"]


async def test_a_file_that_cannot_be_opened(tmp_path):
    with pytest.raises(SqliteError, match="unable to open"):
        await SqliteFile.open(str(tmp_path / "no" / "f.db"), busy_ms=20)
