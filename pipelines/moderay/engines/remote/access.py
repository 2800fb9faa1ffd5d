"""The way to an endpoint: the key, where it may go, and the proxy in between."""

from __future__ import annotations

import ipaddress
import os
import urllib.request
from urllib.parse import urlsplit

# Environment variable of the process that asks.
KEY = "OPENAI_API_KEY"


def key_for(endpoint: str) -> str | None:
    """The key to send, None where there is none or where others could read it."""
    return os.environ.get(KEY) if is_private(endpoint) else None


def is_private(endpoint: str) -> bool:
    """Whether nobody else reads what goes there: over https, or within this machine."""
    url = urlsplit(endpoint)
    return url.scheme == "https" or _is_loopback(url.hostname or "")


def proxy_for(endpoint: str) -> str | None:
    """The proxy that the environment names for an endpoint."""
    url = urlsplit(endpoint)
    host = url.hostname or ""
    if _is_loopback(host) or urllib.request.proxy_bypass(host):
        return None
    return urllib.request.getproxies().get(url.scheme)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
