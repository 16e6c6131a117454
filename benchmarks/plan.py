"""What is measured: the loads, the servers that each is put on, and how long.

Rules:
- `servers` carry a bound of the table and are measured in every round, one after the other, so
  that a disturbance of the machine meets all of them.
- `beside` are shown for comparison: in every round of a full run, once in a quick one.
- `only_full` are left out of a quick run.
"""

from collections.abc import Sequence
from dataclasses import dataclass

SUBSCRIBERS = 1000
PACE = 100
CALM_PACE = 20
AWAKE = "--awake"
"""At a pace below what a server can do, a generator that sleeps is woken at the server's cost."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How long a run takes. Durations in seconds."""

    name: str
    rounds: int
    window: float
    paced_window: float
    idle_connections: int
    respawns: int
    starts: int

    @property
    def is_full(self) -> bool:
        return self.name == "full"


QUICK = Scale("quick", 3, window=2, paced_window=4, idle_connections=2000, respawns=24, starts=3)
FULL = Scale("full", 5, window=5, paced_window=10, idle_connections=5000, respawns=200, starts=5)


@dataclass(frozen=True, slots=True)
class Load:
    name: str
    run: str
    title: str
    servers: tuple[str, ...]
    beside: tuple[str, ...] = ()
    only_full: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    rate: int = 0
    is_paced: bool = False
    is_awake: bool = False
    once: bool = False

    def servers_in(self, scale: Scale, round_number: int) -> Sequence[str]:
        if self.once and round_number:
            return ()
        if scale.is_full:
            return (*self.servers, *self.beside, *self.only_full)
        return (*self.servers, *self.beside) if round_number == 0 else self.servers

    def arguments(self, scale: Scale) -> list[str]:
        window = scale.paced_window if self.is_paced else scale.window
        given = [*self.options, "--window", str(window)]
        if self.rate:
            given += ["--rate", str(self.rate)]
        if self.is_awake:
            given.append(AWAKE)
        if self.run == "idle":
            given += ["--connections", str(scale.idle_connections), "--window", "4"]
        return given


LOADS = (
    Load(
        "broadcast",
        "broadcast",
        "1,000 subscribers of one channel, 128 B, 32 publications under way",
        servers=("ours", "socketio", "python-socketio", "golib", "ours-4"),
        beside=("ours-protobuf", "channels", "ours-nginx", "floor"),
    ),
    Load(
        "spread",
        "broadcast",
        "the same with the publishers spread over all workers",
        servers=(),
        beside=("ours-4",),
        options=("--spread-publishers",),
    ),
    Load(
        "kept",
        "broadcast",
        "the same in a channel with history: every publication is numbered and kept",
        servers=(),
        beside=("ours",),
        options=("--channel", "kept:bench"),
    ),
    Load(
        "paced",
        "broadcast",
        "the same at 100 publishes/s",
        servers=("ours", "socketio", "floor", "ours-4"),
        beside=("golib",),
        options=("--spread-publishers",),
        rate=PACE,
        is_paced=True,
        is_awake=True,
    ),
    Load(
        "asleep",
        "broadcast",
        "the same at 100 publishes/s with a generator that sleeps, which its senders pay for",
        servers=(),
        beside=("ours", "socketio", "floor"),
        options=("--spread-publishers",),
        rate=PACE,
        is_paced=True,
    ),
    Load(
        "calm",
        "broadcast",
        "the same at 20 publishes/s, which every server keeps up with",
        servers=("ours", "socketio"),
        only_full=("golib",),
        rate=CALM_PACE,
        is_paced=True,
        is_awake=True,
    ),
    Load(
        "crowd",
        "crowd",
        "200 channels × 5 subscribers, every subscriber publishes",
        servers=("ours", "socketio"),
        beside=("ours-protobuf",),
        only_full=("python-socketio", "channels", "golib"),
    ),
    Load(
        "echo",
        "echo",
        "100 connections, one call under way on each",
        servers=("ours-rpc", "socketio", "python-socketio"),
        beside=("ours-rpc-awaited", "ours-rpc-protobuf"),
        only_full=("channels", "golib"),
        options=("--connections", "100"),
    ),
    Load(
        "connect",
        "connect",
        "waves of 1,000 connections, 64 being opened",
        servers=("ours", "socketio"),
        beside=("ours-protobuf",),
        only_full=("python-socketio", "channels", "golib"),
    ),
    Load(
        "memory",
        "idle",
        "idle connections, each subscribed to one of 200 channels",
        servers=("ours", "ours-protobuf", "socketio", "python-socketio", "channels", "golib"),
        once=True,
    ),
    Load(
        "users",
        "idle",
        "idle connections, each with a token, in one of 200 channels with presence and one without",
        servers=("ours-users",),
        once=True,
    ),
)
