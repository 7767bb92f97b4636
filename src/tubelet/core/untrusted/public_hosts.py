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
from typing import Any

from tubelet.core.errors import InputError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # of networks without IPv4: the last 32 bits are an IPv4 address
# private networks of former times, and IPv6 over IPv4 (6to4), which Python 3.12 calls public and 3.13 does not
_OF_FORMER_TIMES = (ipaddress.IPv6Network("fec0::/10"), ipaddress.IPv6Network("2002::/16"))


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet, and not of this machine, a private network or a group.

    Example:
        >>> from tubelet.core.untrusted.public_hosts import is_public
        >>> is_public("93.184.215.14"), is_public("127.0.0.1"), is_public("::ffff:192.168.1.1")
        (True, False, False)
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if any(ip in network for network in _OF_FORMER_TIMES):
        return False
    host = _meaning(ip)
    return host.is_global and not host.is_multicast and not host.is_reserved


def _meaning(ip: Address) -> Address:
    """The IPv4 address that an IPv6 address stands for, or the address itself."""
    if isinstance(ip, ipaddress.IPv4Address):
        return ip
    if ip in _NAT64:
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip


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
