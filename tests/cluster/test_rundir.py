"""The run directory's files."""

import os
import socket
import tempfile

import pytest

from minidist.cluster import rundir
from minidist.cluster.rundir import RunDir


@pytest.mark.parametrize("descriptors", [rundir.OWN_DESCRIPTORS, "/no/such/directory"])
def test_a_socket_whose_path_is_too_long_is_reached_and_nothing_is_left(tmp_path, monkeypatch, descriptors):
    monkeypatch.setattr(rundir, "OWN_DESCRIPTORS", descriptors)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    run_dir = RunDir(tmp_path / ("long" * 30) / "name")
    assert run_dir.connect() is None
    run_dir.path.mkdir(parents=True)
    assert run_dir.connect() is None
    with socket.socket(socket.AF_UNIX) as listening:
        with run_dir.short_socket_path() as path:
            listening.bind(path)
        listening.listen()
        connection = run_dir.connect()
        assert connection is not None
        connection.close()
    assert os.listdir(tmp_path) == ["long" * 30]
