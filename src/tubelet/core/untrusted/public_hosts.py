"""Connect to public hosts of the internet alone: for addresses that strangers give to a server.

The address that a name stands for is checked and then connected to, so a name cannot change its meaning in between.
Each redirect makes a new connection, which is checked in the same way.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import urllib.request
from collections.abc import Iterator
from typing import Any

from tubelet.core.errors import InputError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # of networks without IPv4: the last 32 bits are an IPv4 address
_SITE_LOCAL = ipaddress.IPv6Network("fec0::/10")  # private networks of former times


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet, and not of this machine, a private network or a group.

    Example:
        >>> from tubelet.core.untrusted.public_hosts import is_public
        >>> is_public("93.184.215.14"), is_public("127.0.0.1"), is_public("::ffff:192.168.1.1")
        (True, False, False)
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    return ip not in _SITE_LOCAL and all(
        meaning.is_global and not meaning.is_multicast and not meaning.is_reserved for meaning in _meanings(ip)
    )


def _meanings(ip: Address) -> Iterator[Address]:
    """The address, or the IPv4 address that it stands for."""
    if isinstance(ip, ipaddress.IPv4Address):
        yield ip
    elif ip.ipv4_mapped is not None:
        yield ip.ipv4_mapped
    elif ip in _NAT64:
        yield ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    else:
        yield ip
        if ip.sixtofour is not None:
            yield ip.sixtofour


def connect(host: str, port: int, timeout: float | None) -> socket.socket:
    """Connect to a public host.

    Raises InputError if one of its addresses is not public, OSError if none answers.
    """
    places = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    if not all(is_public(str(place[4][0])) for place in places):
        raise InputError(
            f"{host}: this address is of this machine or of a private network; only public addresses are fetched"
        )

    failure = OSError("no address")
    for *_, host_and_port in places:
        try:
            return socket.create_connection((str(host_and_port[0]), port), timeout)
        except OSError as error:
            failure = error
    raise failure


class PublicHTTPHandler(urllib.request.HTTPHandler):
    """Opens http addresses of public hosts."""

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_Connection, request)


class PublicHTTPSHandler(urllib.request.HTTPSHandler):
    """Opens https addresses of public hosts."""

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_SecureConnection, request)


class _Connection(http.client.HTTPConnection):
    def connect(self) -> None:
        self.sock = connect(self.host, self.port, self.timeout)


class _SecureConnection(http.client.HTTPSConnection):
    def connect(self) -> None:
        plain = connect(self.host, self.port, self.timeout)
        try:
            self.sock: Any = ssl.create_default_context().wrap_socket(plain, server_hostname=self.host)
        except BaseException:
            plain.close()
            raise
