"""From an accepted connection to its end: HTTP, the handshake, frames, the client.

`entry` tells handshakes from other HTTP; `handshake` checks and answers them; `server` lets clients in,
keeps time for all of them and sends them away; `framed` is a socket with frames on it, `first_frame`
looks at their masking, `client` is the client behind it; `wheel` says whose ping is due; `host` is
what a client needs of the server.
"""
