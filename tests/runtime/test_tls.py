"""TLS listeners on both loops: service, mutual authentication, bad files, faults, silent and plain-text clients."""

import asyncio
import ssl
import subprocess
from pathlib import Path

import pytest
from line_server import LineConfig

from minidist.runtime import endpoint
from minidist.runtime.config import ConfigError
from minidist.runtime.tls import server_context

PEM = str(Path(__file__).with_name("localhost.pem"))


@pytest.fixture
async def dial():
    writers = []

    async def connect(node, context=None):
        context = context or ssl.create_default_context(cafile=PEM)
        reader, writer = await asyncio.open_connection(
            node.address.host, node.address.port, ssl=context, server_hostname="localhost"
        )
        writers.append(writer)
        return reader, writer

    yield connect
    for writer in writers:
        writer.transport.abort()


async def ask(client, line):
    reader, writer = client
    writer.write(line.encode() + b"\n")
    return (await reader.readline()).decode().rstrip("\n")


async def test_service_limits_and_drain(start_node, dial):
    node = await start_node(tls_cert=PEM, tls_key=PEM, max_clients=1)
    client = await dial(node)
    assert await ask(client, "hello") == "HELLO"
    assert await ask(await dial(node), "hello") == "!too many"
    client[1].write(b"big 3000000\n")
    assert await client[0].readexactly(3_000_001) == b"." * 3_000_000 + b"\n"
    await node.drain()
    assert await client[0].read() == b""


async def test_faults_under_tls(start_node, dial, eventually):
    node = await start_node(tls_cert=PEM, tls_key=PEM)
    client = await dial(node)
    assert await ask(client, "hello") == "HELLO"
    fault = node.faults.add({"kind": "partition"})
    answer = asyncio.ensure_future(ask(client, "during"))
    await eventually(lambda: bool(node.faults.faults[fault].fired))
    assert not answer.done()
    node.faults.remove(fault)
    assert await answer == "DURING"
    node.faults.add({"kind": "delay", "ms": 1})
    assert await ask(await dial(node), "slowly") == "SLOWLY"
    node.faults.clear()
    node.faults.add({"kind": "reset"})
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await client[0].readexactly(1)


async def test_a_partitioned_tls_node_does_not_learn_that_its_peer_has_gone(start_node, dial, eventually, caplog):
    node = await start_node(tls_cert=PEM, tls_key=PEM)
    client = await dial(node)
    await ask(client, "hello")
    fault = node.faults.add({"kind": "partition"})
    (connection,) = node.listeners["line"].connections
    client[1].close()
    await eventually(lambda: bool(connection.transport.incoming.queue))
    node.faults.remove(fault)
    await eventually(lambda: not node.listeners["line"].connections)
    assert "eof_received" not in caplog.text


async def test_clients_without_a_certificate_of_the_authority_are_turned_away(start_node, dial):
    node = await start_node(tls_cert=PEM, tls_key=PEM, tls_ca=PEM)
    with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
        reader, _ = await dial(node)
        await reader.readexactly(1)
    context = ssl.create_default_context(cafile=PEM)
    context.load_cert_chain(PEM)
    assert await ask(await dial(node, context), "hello") == "HELLO"


async def test_plain_text_on_a_tls_port_is_no_trouble(start_node, dial, connect, caplog):
    node = await start_node(tls_cert=PEM, tls_key=PEM)
    client = await connect(node)
    client.writer.write(b"GET / HTTP/1.1\r\n\r\n")
    try:
        await client.reader.read()
    except ConnectionResetError:
        pass
    assert await ask(await dial(node), "still here") == "STILL HERE"
    assert "Traceback" not in caplog.text


async def test_a_client_that_never_shakes_hands_does_not_stay(start_node, connect, monkeypatch):
    monkeypatch.setattr(endpoint, "TLS_HANDSHAKE_TIMEOUT_S", 0.05)
    node = await start_node(tls_cert=PEM, tls_key=PEM)
    client = await connect(node)
    assert await client.reader.read() == b""


def test_files_that_are_no_certificates(tmp_path):
    nonsense = tmp_path / "x.pem"
    nonsense.write_text("nonsense")
    missing = str(tmp_path / "missing.pem")
    for cert, key, ca, option in (
        (missing, PEM, "", "--tls-cert/--tls-key"),
        (str(nonsense), PEM, "", "--tls-cert/--tls-key"),
        (PEM, str(nonsense), "", "--tls-cert/--tls-key"),
        (PEM, PEM, str(nonsense), "--tls-ca"),
        (PEM, PEM, missing, "--tls-ca"),
    ):
        with pytest.raises(ConfigError, match=f"^{option}: given ") as refused:
            server_context(LineConfig(tls_cert=cert, tls_key=key, tls_ca=ca))
        assert "\n" not in str(refused.value)


def test_an_encrypted_key_is_refused_instead_of_asking_the_terminal(tmp_path):
    key = tmp_path / "key.pem"
    made = ["openssl", "pkey", "-in", PEM, "-aes256", "-passout", "pass:secret", "-out", str(key)]
    try:
        subprocess.run(made, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs the openssl command to encrypt a key")
    with pytest.raises(ConfigError, match="--tls-cert/--tls-key"):
        server_context(LineConfig(tls_cert=PEM, tls_key=str(key)))
