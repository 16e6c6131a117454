"""nginx as a child, and the one template that serves it embedded and in a container.

Rules
- The public socket is ours; nginx inherits it (the descriptor list in the variable NGINX, which
  nginx itself uses to replace its program), so the port outlives nginx.
- The configuration is written anew before every start and every reload.
- What nginx says may quote a request: everything after a question mark is taken out.
"""

from __future__ import annotations

import asyncio
import grp
import os
import pwd
import re
import signal
import string
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cluster.children.child import Child
from cluster.children.process import Launch
from cluster.children.worker_child import environment

_ASK_AGAIN_SECONDS: Final = 0.02
_ANSWER_SECONDS: Final = 2.0
_QUERY: Final = re.compile(r"\?[^\s\"',]*")
# A connection costs nginx about 430 bytes from its start on, whether it is used or not.
_MOST_CONNECTIONS: Final = 65536
_OTHER_FILES: Final = 64
_PROBE: Final = """
    server {{
        listen "unix:{}";
        access_log off;
        return 204;
    }}"""


@dataclass(frozen=True, slots=True)
class NginxSettings:
    """What the template is filled with.

    Attributes:
        listen: address and port of the public door, as nginx writes it.
        workers: address and port of every worker's slot.
        admin: address and port of the operator's door.
        ping_interval_seconds: three of them without a byte end a connection.
        file_limit: file descriptors one nginx process may have.
        user: `name group` its processes become when started by root; empty otherwise.
        probe_socket: a unix socket it answers on as soon as it runs; empty for none.
        instance: the label that metrics and all other logs carry.
    """

    listen: str
    workers: Sequence[str]
    admin: str
    ping_interval_seconds: float
    file_limit: int
    processes: int = 1
    user: str = ""
    pid_file: str = "nginx.pid"
    access_log: str = "/dev/stdout"
    error_log: str = "stderr"
    probe_socket: str = ""
    instance: str = ""

    @property
    def connections_per_process(self) -> int:
        """Connections one process may hold; a client uses two, its own and the worker's."""
        return max(64, min(_MOST_CONNECTIONS, self.file_limit - _OTHER_FILES))

    @property
    def capacity(self) -> int:
        """Clients that fit through this door."""
        return self.processes * (self.connections_per_process // 2)


class _Template(string.Template):
    """`%{name}`: nginx's own variables begin with a dollar sign."""

    delimiter = "%"


def template_path() -> Path:
    """Where the template is: in the package when installed, beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "nginx", package.parent / "nginx"):
        if (folder / "nginx.conf").is_file():
            return folder / "nginx.conf"
    raise FileNotFoundError("nginx/nginx.conf")


def render(settings: NginxSettings) -> str:
    """The configuration of an nginx."""
    upstreams = "\n".join(f"        server {address} max_fails=0;" for address in settings.workers)
    probe = _PROBE.format(settings.probe_socket) if settings.probe_socket else ""
    return _Template(template_path().read_text(encoding="utf-8")).substitute(
        user=f"user {settings.user};" if settings.user else "",
        processes=settings.processes,
        file_limit=settings.file_limit,
        connections=settings.connections_per_process,
        pid_file=settings.pid_file,
        access_log=settings.access_log,
        instance=settings.instance,
        error_log=settings.error_log,
        listen=settings.listen,
        probe=probe,
        upstreams=upstreams,
        admin=settings.admin,
        read_timeout=f"{max(1000, round(3000 * settings.ping_interval_seconds))}ms",
    )


def unprivileged_user() -> str:
    """Who nginx's processes become when root starts them; empty when we are not root."""
    if os.geteuid() != 0:
        return ""
    with suppress(KeyError):
        entry = pwd.getpwnam("nobody")
        return f"{entry.pw_name} {grp.getgrgid(entry.pw_gid).gr_name}"
    return "root root"


class NginxSpec:
    """The one embedded nginx.

    Args:
        program: path of nginx.
        run_dir: its own directory: configuration, pid file, temporary files.
        listen_fd: the public socket, which stays ours.
        lock_fd: the lock of the data directory.
        settings: called before each start and reload, so that it follows the workers.
    """

    name = "nginx"
    lanes: tuple[str, ...] = ("nginx",)
    stop_signal = signal.SIGTERM
    boot_seconds = 30.0
    output_level = "warning"

    def __init__(
        self,
        program: str,
        *,
        run_dir: Path,
        listen_fd: int,
        lock_fd: int,
        settings: Callable[[], NginxSettings],
    ) -> None:
        self._program = program
        self._run_dir = run_dir
        self._listen_fd = listen_fd
        self._lock_fd = lock_fd
        self._settings = settings

    @property
    def _conf(self) -> Path:
        return self._run_dir / "nginx.conf"

    @property
    def _probe(self) -> Path:
        return self._run_dir / "probe.sock"

    def write_configuration(self) -> None:
        """Write the configuration for what runs now."""
        fresh = self._conf.with_suffix(".new")
        fresh.write_text(render(self._settings()), encoding="utf-8")
        fresh.replace(self._conf)

    def reload(self, child: Child) -> None:
        """Let a running nginx follow; connections it holds stay with its old processes."""
        self.write_configuration()
        child.signal(signal.SIGHUP)

    def launch(self, lane: str) -> Launch:
        """What to start."""
        self.write_configuration()
        self._probe.unlink(missing_ok=True)
        return Launch(
            argv=(
                self._program,
                *("-p", f"{self._run_dir}/"),
                *("-c", str(self._conf)),
                *("-e", "stderr"),
            ),
            env=environment(NGINX=f"{self._listen_fd};"),
            death_signal=signal.SIGTERM,
            pass_fds=(self._listen_fd, self._lock_fd),
            inherits_stdout=False,
        )

    async def watch(self, child: Child, status_fd: int | None) -> None:
        """Ask until it answers; afterwards its exit is all there is to know."""
        while not await self._answers():  # noqa: ASYNC110 - nginx tells nobody
            await asyncio.sleep(_ASK_AGAIN_SECONDS)
        child.report("ready")

    async def _answers(self) -> bool:
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(_ANSWER_SECONDS):
                reader, writer = await asyncio.open_unix_connection(str(self._probe))
                try:
                    writer.write(b"GET /probe HTTP/1.0\r\n\r\n")
                    return (await reader.readline()).startswith(b"HTTP/1.1 204")
                finally:
                    writer.close()
        return False

    def said(self, text: str) -> str:
        """What it said, without any request's arguments."""
        kept = [line for line in text.splitlines() if "using inherited sockets" not in line]
        return _QUERY.sub("?…", "\n".join(kept))

    def ended(self, lane: str) -> None:
        """Take away the socket nobody listens on any more."""
        self._probe.unlink(missing_ok=True)
