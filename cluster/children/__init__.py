"""Child processes of the supervisor: how each kind starts, becomes ready, and stops.

- `child`: the code that all kinds share; `worker_child`, `valkey`, `nginx`: what differs.
- `process`: starting and reaping operating-system processes; `binaries`: finding programs.
- `backoff`, `heartbeat`: pure logic of restarts and liveness.
- `listeners`: the listening sockets.
"""
