"""Proxies: a backend in any language decides what clients may do, over HTTP, as with Centrifugo.

A proxy is an application (`cluster.application`) whose handlers send the event to the backend and return
what it answers; so its limits, its errors and its metrics are those of handlers.
"""

from __future__ import annotations

from cluster.proxy.proxy_application import proxy_application

__all__ = ["proxy_application"]
