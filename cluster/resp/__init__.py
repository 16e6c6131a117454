"""The client of Redis or Valkey on the hot path: pipelined connections, kept alive, routed by slot.

`link` is RESP2 over asyncio, everything one read brings as one batch, and keeps a connection to one server
open. A `shard` is a server with two links, `discovery` and `sentinel` find
the servers, `router` knows which of them owns a key, `subscriptions` are kept over all of them, and
`scripts` are the Lua files. Why this is not redis-py: docs/adr/0005-own-resp-connection.md.
"""
