"""Carries frames between aiohttp's WebSockets and connections.

`door` lets clients in, keeps time for all of them and sends them away; `carrier` is one client's
socket after the handshake; `wheel` says whose ping is due.
"""
