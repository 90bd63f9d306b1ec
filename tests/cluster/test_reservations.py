"""Reserved ports: a node can listen, clients of a dead one are refused, nobody else gets them."""

import socket

import pytest

from minidist.cluster.reservations import PortTaken, Reservation
from minidist.runtime.config import Address

ANY = Address("127.0.0.1", 0)


@pytest.fixture
def reserved():
    reservation = Reservation(ANY)
    yield reservation.address
    reservation.release()


def listener(address, option):
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, option, 1)
    made.bind((address.host, address.port))
    made.listen()
    return made


@pytest.mark.parametrize("option", [socket.SO_REUSEADDR, socket.SO_REUSEPORT])
def test_the_node_listens_beside_the_reservation_and_its_dead_port_refuses(reserved, option):
    for _ in range(2):  # it may come back
        with listener(reserved, option), socket.create_connection((reserved.host, reserved.port)):
            pass
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((reserved.host, reserved.port))


def test_a_second_reservation_is_refused(reserved):
    with pytest.raises(PortTaken, match=f"127.0.0.1:{reserved.port} is in use"):
        Reservation(reserved)


@pytest.mark.parametrize("option", [socket.SO_REUSEADDR, socket.SO_REUSEPORT])
def test_a_port_that_somebody_listens_on_is_refused(option):
    with listener(ANY, option) as other, pytest.raises(PortTaken, match="is in use"):
        Reservation(Address(*other.getsockname()))


def test_an_address_that_is_not_ours_is_refused():
    with pytest.raises(PortTaken, match="cannot be had"):
        Reservation(Address("192.0.2.1", 0))


def test_a_released_port_can_be_reserved_again():
    first = Reservation(ANY)
    first.release()
    second = Reservation(first.address)
    assert second.address == first.address
    second.release()
