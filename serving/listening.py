"""Where servers listen. `::` is every address of this machine, of IPv4 as well: of a cluster's pods some have
one of IPv4, some of IPv6, some both.
"""

import socket
from http.server import ThreadingHTTPServer
from typing import Any

EVERY = "::"


def usable(host: str) -> str:
    """`host`, or 0.0.0.0 for `::` on a machine without IPv6."""
    return "0.0.0.0" if host == EVERY and not socket.has_dualstack_ipv6() else host  # noqa: S104  what it says


def url(host: str, port: int) -> str:
    """Where a browser on this machine finds it.

    >>> url("::1", 8080)
    'http://[::1]:8080'
    """
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def bound(host: str, port: int) -> socket.socket:
    """A bound socket, which does not listen yet. asyncio's own would take `::` for IPv6 alone."""
    host = usable(host)
    one = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if host == EVERY:
        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    try:
        one.bind((host, port))
    except OSError as error:
        one.close()
        raise OSError(error.errno, error.strerror, url(host, port)) from error
    return one


class Server(ThreadingHTTPServer):
    """One of the standard library, on any host."""

    def __init__(self, host: str, port: int, handler: Any) -> None:
        super().__init__((host, port), handler, bind_and_activate=False)
        self.socket.close()
        self.socket = bound(host, port)
        self.server_address = address = self.socket.getsockname()
        self.server_name, self.server_port = str(address[0]), int(address[1])
        self.server_activate()
