"""Which addresses may be connected to.

Public addresses are those that IANA's registries of special-purpose addresses call globally reachable. The standard
library knows the registries as of its own release; this module adds what releases since 3.11.0 added, and IPv6
addresses that carry an IPv4 address.
"""

from __future__ import annotations

import ipaddress
from typing import NamedTuple

from housekeeping_pipelines.errors import ConfigurationError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# https://www.iana.org/assignments/iana-ipv4-special-registry, and the relay addresses of 6to4 (RFC 7526).
_NOT_PUBLIC_V4 = tuple(
    ipaddress.IPv4Network(network)
    for network in ("100.64.0.0/10", "192.0.0.0/24", "192.88.99.0/24", "198.18.0.0/15", "224.0.0.0/3")
)
# https://www.iana.org/assignments/iana-ipv6-special-registry, within the one block of global unicast addresses.
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_NOT_PUBLIC_V6 = tuple(ipaddress.IPv6Network(network) for network in ("2001::/23", "2001:db8::/32", "3fff::/20"))
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")

# Metadata services (Amazon, Google, Azure, Alibaba, Oracle), which hand out credentials, and all link-local addresses.
_METADATA: tuple[Network, ...] = tuple(
    ipaddress.ip_network(network)
    for network in (
        "169.254.0.0/16",
        "fe80::/10",
        "fd00:ec2::/32",
        "fd20:ce::254/128",
        "168.63.129.16/32",
        "100.100.100.200/32",
        "192.0.0.192/32",
    )
)


def is_public(address: Address) -> bool:
    """Whether the address is reachable from the Internet; one that carries an IPv4 address counts as that address."""
    if isinstance(address, ipaddress.IPv4Address):
        special = address.is_multicast or address.is_reserved or address.is_link_local or address.is_loopback
        return address.is_global and not special and not any(address in network for network in _NOT_PUBLIC_V4)
    if (carried := _carried(address)) is not None:
        return is_public(carried)
    if address not in _GLOBAL_UNICAST or any(address in network for network in _NOT_PUBLIC_V6):
        return False
    return address.is_global and not address.is_multicast


def is_metadata(address: Address) -> bool:
    """Whether an operator must allow the address itself, and not only a name that resolves to it."""
    carried = _carried(address) if isinstance(address, ipaddress.IPv6Address) else None
    if carried is not None:
        return is_metadata(carried)
    return any(address.version == network.version and address in network for network in _METADATA)


def _carried(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address within a mapped, a 6to4 or a NAT64 address; None for any other."""
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour


class _Name(NamedTuple):
    name: str
    port: int | None

    def matches(self, host: str, port: int) -> bool:
        if self.port not in (None, port):
            return False
        return host.endswith(self.name[1:]) if self.name.startswith("*.") else host == self.name


class _Range(NamedTuple):
    network: Network
    port: int | None

    def matches(self, address: Address, port: int) -> bool:
        return self.port in (None, port) and address.version == self.network.version and address in self.network


class AllowedHosts:
    """The hosts that an operator allows beyond public addresses; see `FetchPolicy.allowed_hosts`."""

    def __init__(self, entries: frozenset[str]) -> None:
        """
        Raises:
            ConfigurationError: an entry is neither a name nor an address nor a network.
        """
        self._names: list[_Name] = []
        self._ranges: list[_Range] = []
        for entry in sorted(entries):
            parsed = _parse(entry.strip().lower())
            if isinstance(parsed, _Name):
                self._names.append(parsed)
            else:
                self._ranges.append(parsed)

    def refusal(self, host: str, port: int, address: Address) -> str | None:
        """Why a connection to this address of a host is refused; None if it is allowed."""
        plain = address.ipv4_mapped or address if isinstance(address, ipaddress.IPv6Address) else address
        if any(each.matches(plain, port) or each.matches(address, port) for each in self._ranges):
            return None
        if is_metadata(address):
            return f"is {address}, an address of this machine's own network or its cloud"
        if is_public(address):
            return None
        bare = host.lower().rstrip(".")
        return None if any(each.matches(bare, port) for each in self._names) else f"is {address}, which is not public"


def _parse(entry: str) -> _Name | _Range:
    try:
        return _Range(ipaddress.ip_network(entry, strict=False), None)
    except ValueError:
        pass
    host, port = entry, None
    if ":" in entry and not entry.endswith("]"):
        host, _, digits = entry.rpartition(":")
        port = int(digits) if digits.isascii() and digits.isdigit() else 0
        if not 0 < port < 65536:
            raise _wrong(entry)
    try:
        return _Range(ipaddress.ip_network(host.removeprefix("[").removesuffix("]"), strict=False), port)
    except ValueError:
        pass
    try:
        name = host.rstrip(".").encode("ascii").decode()
    except UnicodeEncodeError:
        import idna

        try:
            name = idna.encode(host.rstrip(".")).decode()
        except idna.IDNAError:
            raise _wrong(entry) from None
    labels = name.removeprefix("*.")
    if not labels or not all(part.replace("-", "").replace("_", "").isalnum() for part in labels.split(".")):
        raise _wrong(entry)
    return _Name(name, port)


def _wrong(entry: str) -> ConfigurationError:
    return ConfigurationError(
        f"{entry!r} of FETCH_ALLOWED_HOSTS is not a host, an address or a network",
        hint="accepted: wiki.example.com, *.example.com, 10.0.0.5, wiki:8080, 10.0.0.0/8, separated by commas",
    )
