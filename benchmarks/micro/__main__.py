"""`python -m benchmarks.micro` runs every micro benchmark and writes benchmarks/results/micro.md."""

from benchmarks.micro import handshake, resp
from benchmarks.micro.comparison import machine, table
from benchmarks.paths import RESULTS, pin_to_server_core

HEAD = """\
# Micro benchmarks

Written by `python -m benchmarks.micro`. Each table compares ways to do one thing, everything else being
the same, by the CPU time of the process that does it: median, lowest and highest of alternating rounds.
"""
RESP = """\
## The store's connection

`python -m benchmarks.micro.resp`; the decision is
[docs/adr/0005](../../docs/adr/0005-own-resp-connection.md). *receive*: messages of one channel, of which a
read may bring one or 32. *publish*: EVALSHA of the publish script, 64 at a time.
"""
HANDSHAKE = """\
## The handshake

`python -m benchmarks.micro.handshake`; the decision is
[docs/adr/0007](../../docs/adr/0007-own-handshake.md). 5,000 connections, 32 at a time, without session
and subscription.
"""


def main() -> None:
    line = machine()
    pin_to_server_core()
    parts = [HEAD, RESP, table(resp.measure()), "", HANDSHAKE, table(handshake.measure()), "", line]
    text = "\n".join(parts) + "\n"
    (RESULTS / "micro.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
