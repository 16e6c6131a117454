"""The address of a client, through proxies that are trusted, and the key that limits count it by.

Rules
- What a proxy says counts only if the proxy is trusted; what a client says about itself never does.
  `X-Forwarded-For` is read from right to left, because each proxy appends the address it has seen, and
  the first address that is not a trusted proxy is the client.
- An address that a trusted proxy sent and that cannot be read is `UNKNOWN`, never the proxy's own:
  a guard must not take a stranger for a neighbour.
- The work is bounded: `_MOST_PROXIES` addresses of a chain are read.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterable, Sequence
from typing import Final

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

UNKNOWN: Final = "unknown"
#: The embedded nginx connects from here; it is always trusted.
LOOPBACK: Final[tuple[Network, ...]] = (
    ipaddress.IPv4Network("127.0.0.0/8"),
    ipaddress.IPv6Network("::1/128"),
)
#: Nobody can register a name below these: RFC 6761, RFC 6762, RFC 8375, and ICANN's reservation of 2024.
PRIVATE_DOMAINS: Final = (".localhost", ".local", ".home.arpa", ".internal")
_THIS_MACHINE: Final = "127.0.0.1"
_MOST_PROXIES: Final = 16
# RFC 6177, section 2: a site gets a /64 at least, so its hosts can choose any address of it.
_SITE_BITS: Final = 64
_CACHED: Final = 4096


def networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """The networks that addresses and CIDR blocks name; an address is a network of one host.

    Raises:
        ValueError: if a text is neither; its argument says which.
    """
    found = []
    for text in texts:
        try:
            found.append(ipaddress.ip_network(text.strip(), strict=False))
        except ValueError:
            raise ValueError(f"{text!r} is neither an address nor a network") from None
    return tuple(found)


def trusted_networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """The networks of `server.trusted_proxies`, and loopback.

    Raises:
        ValueError: as `networks`.
    """
    return (*LOOPBACK, *networks(texts))


def peer_address(peername: object) -> str:
    """The address of the other end of a socket, given what its transport has as "peername".

    That of a unix socket has none, and is on this machine: 127.0.0.1, as if it had come over loopback.

    Returns:
        The address; empty if the connection has ended.
    """
    if isinstance(peername, (str, bytes)):
        return _THIS_MACHINE
    return str(peername[0]) if isinstance(peername, tuple) else ""


def client_address(
    peer: str, forwarded_for: Sequence[str] | str, trusted: Sequence[Network]
) -> str:
    """The address of the client behind trusted proxies, in canonical form without port and zone.

    Args:
        peer: the address of the other end of the socket.
        forwarded_for: the values of the X-Forwarded-For headers, in their order, or one value.
        trusted: the proxies; `trusted_networks`.

    Returns:
        The rightmost address that is not a trusted proxy; if all are trusted, the leftmost that was
        read; `UNKNOWN` if it cannot be read.
    """
    found = parse(peer)
    if found is None:
        return UNKNOWN
    if not forwarded_for or not is_in(found, trusted):
        return str(found)
    chain = forwarded_for if isinstance(forwarded_for, str) else ",".join(forwarded_for)
    for text in reversed(chain.rsplit(",", _MOST_PROXIES)[-_MOST_PROXIES:]):
        found = parse(text)
        if found is None:
            return UNKNOWN
        if not is_in(found, trusted):
            break
    return str(found)


def address_key(address: str) -> str:
    """What limits count an address by: itself, or the /64 of an IPv6 address (`2001:db8::/64`)."""
    found = parse(address)
    if found is None:
        return UNKNOWN
    if found.version == 4:
        return str(found)
    return str(ipaddress.IPv6Network((int(found), _SITE_BITS), strict=False))


def is_in(address: Address, those: Iterable[Network]) -> bool:
    """Whether an address is in one of the networks."""
    return any(address in network for network in those)


@functools.lru_cache(maxsize=_CACHED)
def parse(text: str) -> Address | None:
    """Read an address as proxies write it, `[::1]:443` and `192.0.2.1:443` too; None if it is none.

    An IPv4 address inside IPv6 (`::ffff:192.0.2.1`) becomes the IPv4 address; a zone is dropped.
    """
    text = text.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv6Address):
        return found.ipv4_mapped or ipaddress.IPv6Address(int(found))
    return found
