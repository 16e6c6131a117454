"""Children of the supervisor: how each kind starts, is found ready, and stops.

`child` is the one code path, `worker`, `valkey` and `nginx` are what differs; `process` is the
operating system's side, `restarts` and `heartbeat` are the arithmetic, `listeners` the sockets.
"""
