"""From an accepted connection to its end: the handshake, WebSocket frames, the client behind them.

`accept` tells handshakes from other HTTP, `handshake` checks and answers them, `server` admits
clients, keeps their timers and closes them in a drain; `client` is one client's connection, on
`frames`, a socket with WebSocket frames on it; `turns` shares the loop among the busy ones, and
`timing_wheel` says whose ping is due.
"""
