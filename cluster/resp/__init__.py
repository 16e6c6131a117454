"""Speaking to Redis or Valkey on the hot path: one pipelined connection, kept alive, routed by slot.

`connection` is the wire (RESP2 over asyncio, everything one read brought is one batch), `link`
keeps one connection to one server alive, `scripts` holds the Lua files, `router` knows which
server owns a key. Why not redis-py here: docs/adr/0005-own-resp-connection.md.
"""
