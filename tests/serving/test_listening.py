"""On every address of a machine, whatever families it has."""

import socket
from http.server import BaseHTTPRequestHandler

import pytest

from serving import listening


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="not run: this machine has no IPv6")
def test_every_address_is_one_of_both_families():
    with listening.bound(listening.EVERY, 0) as server:
        server.listen()
        for host in ("127.0.0.1", "::1"):
            socket.create_connection((host, server.getsockname()[1]), timeout=5).close()


def test_a_machine_without_ipv6_listens_on_ipv4(monkeypatch):
    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: False)
    with listening.bound(listening.EVERY, 0) as server:
        assert (server.family, server.getsockname()[0]) == (socket.AF_INET, "0.0.0.0")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", listening.EVERY])
def test_a_server_of_the_standard_library_listens_where_it_is_told(host):
    server = listening.Server(host, 0, BaseHTTPRequestHandler)
    try:
        socket.create_connection(("127.0.0.1", server.server_port), timeout=5).close()
    finally:
        server.server_close()
