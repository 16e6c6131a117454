"""nginx as a child process, and the template of its configuration.

The embedded nginx and the container image use the same template.

Rules
- The supervisor owns the public socket and nginx inherits it, so the port outlives nginx. The
  descriptor is passed in the variable NGINX, which nginx itself uses to upgrade its binary.
- The configuration is written again before every start and every reload.
- nginx's output may quote a request, so everything after a question mark is removed from it.
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
from cluster.log import get_logger

_PROBE_INTERVAL_SECONDS: Final = 0.02
_PROBE_TIMEOUT_SECONDS: Final = 2.0
_QUERY: Final = re.compile(r"\?[^\s\"',]*")
# nginx allocates about 430 bytes per possible connection when it starts.
_MAX_CONNECTIONS: Final = 65536
#: WebSockets that a process serves at most, however many files it may open: each is two connections.
MOST_CLIENTS_PER_PROCESS: Final = _MAX_CONNECTIONS // 2
MOST_PROCESSES: Final = 64
_OTHER_FILES: Final = 64
_PROBE: Final = """
    server {{
        listen "unix:{}";
        access_log off;
        return 204;
    }}"""

_STATUS: Final = """
    server {{
        listen {};
        access_log off;
        error_page 405 @not_allowed;
        location @not_allowed {{
            add_header Allow "GET,HEAD" always;
            return 405;
        }}
        location = /stub_status {{
            stub_status;
        }}
        location = /health {{
            return 204;
        }}
        location / {{
            return 404;
        }}
    }}"""

# The ciphers are those of Mozilla's intermediate profile with ECDHE; all of them have forward secrecy.
_TLS: Final = """
        listen {listen} ssl backlog=4096 default_server;
        ssl_certificate "{certificate}";
        ssl_certificate_key "{key}";
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_ciphers {ciphers};
        ssl_prefer_server_ciphers off;
        ssl_session_cache shared:tls:10m;
        ssl_session_timeout 1d;
        ssl_session_tickets off;
        # Certificate authorities are ending OCSP, and nginx would need a way out to ask.
        ssl_stapling off;
        # Small records: a message must not wait for the rest of 16 KiB.
        ssl_buffer_size 4k;"""
_TLS_CIPHERS: Final = ":".join(
    f"ECDHE-{kind}-{cipher}"
    for cipher in ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")
    for kind in ("ECDSA", "RSA")
)


@dataclass(frozen=True, slots=True)
class NginxSettings:
    """The values of the template.

    Attributes:
        listen: address and port of the public listener, in nginx's notation.
        workers: address and port of every worker, or `unix:` and the path of its socket.
        admin: address and port of the admin port.
        ping_interval_seconds: nginx closes a connection after three intervals without a byte.
        file_limit: file descriptors allowed per nginx process.
        access_log: a path; one that may contain a `$` must be given relative to the directory of
            the configuration, through a link.
        user: `name group` of the worker processes if nginx is started by root; empty otherwise.
        probe_socket: a unix socket for the readiness probe; empty for none.
        instance: the instance label of the access log, as in metrics and other logs; nginx's variable is the
            name of the host or container.
        trusted_proxies: networks of proxies whose X-Forwarded-For is believed.
        admin_connections: most connections to the admin port.
        connections_per_address: WebSockets that one address may have; 0 is any number.
        connection_rate_per_address: handshakes of one address per second; 0 is any number.
        resolver: address of the DNS server that is asked for the names of workers and admin port, every
            second: replicas come and go without a reload. Empty if they are addresses.
        status_listen: address of a listener with /stub_status and /health; empty for none.
        tls_listen: address of the listener for https and wss; empty for none.
        tls_certificate: path of the certificate and its chain, in PEM.
        tls_key: path of its key, in PEM.
        hsts_seconds: for how long browsers use nothing but https; 0 is not said.
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
    instance: str = "$hostname"
    trusted_proxies: Sequence[str] = ()
    admin_connections: int = 128
    connections_per_address: int = 0
    connection_rate_per_address: int = 0
    resolver: str = ""
    status_listen: str = ""
    tls_listen: str = ""
    tls_certificate: str = ""
    tls_key: str = ""
    hsts_seconds: int = 0

    @property
    def connections_per_process(self) -> int:
        """Connections one process may hold; a client uses two: its own, and one to the worker."""
        return max(64, min(_MAX_CONNECTIONS, self.file_limit - _OTHER_FILES))

    @property
    def clients_per_process(self) -> int:
        """WebSockets that one process serves; others are answered with 503."""
        return self.connections_per_process // 2

    @property
    def capacity(self) -> int:
        """Number of clients this nginx can serve."""
        return self.processes * self.clients_per_process


def processes_for(workers: int) -> int:
    """Return the number of nginx's processes beside so many workers."""
    return max(1, min(MOST_PROCESSES, workers))


class _Template(string.Template):
    """Placeholders are `%{name}`, because nginx's own variables begin with a dollar sign."""

    delimiter = "%"


def template_path() -> Path:
    """Return the template's path: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "nginx", package.parent / "nginx"):
        if (folder / "nginx.conf").is_file():
            return folder / "nginx.conf"
    raise FileNotFoundError("nginx/nginx.conf")


def _escaped(text: str) -> str:
    """A text as it stands between double quotes in nginx.conf.

    A `$` begins a variable in some directives, such as access_log, and nothing escapes it.
    """
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _server(address: str) -> str:
    """An address as a parameter of `server`; the path of a unix socket may have any character."""
    return f'"{_escaped(address)}"' if address.startswith("unix:") else address


def render(settings: NginxSettings) -> str:
    """Return the text of nginx.conf."""
    # A name is resolved again and again; both need `zone` in the upstream (ngx_http_upstream_module).
    resolve = " resolve" if settings.resolver else ""
    upstreams = "\n".join(
        f"        server {_server(address)}{resolve} max_fails=0;" for address in settings.workers
    )
    proxies = "\n".join(f"    set_real_ip_from {one};" for one in settings.trusted_proxies)
    probe = _PROBE.format(_escaped(settings.probe_socket)) if settings.probe_socket else ""
    status = _STATUS.format(settings.status_listen) if settings.status_listen else ""
    return _Template(template_path().read_text(encoding="utf-8")).substitute(
        user=f"user {settings.user};" if settings.user else "",
        processes=settings.processes,
        file_limit=settings.file_limit,
        connections=max(
            settings.connections_per_process, min(_MAX_CONNECTIONS, settings.file_limit)
        ),
        clients=settings.clients_per_process,
        address_zones=_address_zones(settings),
        address_limits=_address_limits(settings),
        hsts_map=(
            f'    map $scheme $strict_transport {{ https "max-age={settings.hsts_seconds}"; }}\n'
            if settings.hsts_seconds
            else ""
        ),
        # One status for all limits of a location: an address above its limit must not be retried.
        limit_status=429 if settings.connections_per_address else 503,
        pid_file=settings.pid_file,
        access_log=_escaped(settings.access_log),
        instance=settings.instance,
        error_log=settings.error_log,
        listen=settings.listen,
        tls=_tls(settings),
        hsts=_hsts(settings),
        probe=probe + status,
        upstreams=upstreams,
        # Without `valid` nothing follows: Docker's names are valid for ten minutes.
        resolver=(
            f"    resolver {settings.resolver} valid=1s ipv6=off;\n    resolver_timeout 2s;\n"
            if settings.resolver
            else ""
        ),
        admin=settings.admin + resolve,
        trusted_proxies=proxies,
        admin_connections=settings.admin_connections,
        read_timeout=f"{max(1000, round(3000 * settings.ping_interval_seconds))}ms",
    )


def _tls(settings: NginxSettings) -> str:
    if not settings.tls_listen:
        return ""
    return _TLS.format(
        listen=settings.tls_listen,
        certificate=_escaped(settings.tls_certificate),
        key=_escaped(settings.tls_key),
        ciphers=_TLS_CIPHERS,
    )


def _hsts(settings: NginxSettings) -> str:
    """Of a location with other headers, too: those of the server are not added there."""
    if not settings.hsts_seconds:
        return ""
    # nginx adds no header whose value is empty: browsers ignore this one without https (RFC 6797, 8.1).
    return "\n            add_header Strict-Transport-Security $strict_transport always;"


def _address_zones(settings: NginxSettings) -> str:
    zones = []
    if settings.connections_per_address:
        zones.append("    limit_conn_zone $client_network zone=addresses:10m;\n")
    if rate := settings.connection_rate_per_address:
        zones.append(f"    limit_req_zone $client_network zone=attempts:10m rate={rate}r/s;\n")
    return "".join(zones)


def _address_limits(settings: NginxSettings) -> str:
    limits = []
    if most := settings.connections_per_address:
        limits.append(f"            limit_conn addresses {most};\n")
    if rate := settings.connection_rate_per_address:
        # The first of a second's handshakes is not part of the burst.
        burst = f" burst={rate - 1}" if rate > 1 else ""
        limits.append(f"            limit_req zone=attempts{burst} nodelay;\n")
    return "".join(limits)


def unprivileged_user() -> str:
    """Return `name group` for nginx's worker processes; empty if this process is not root."""
    if os.geteuid() != 0:
        return ""
    with suppress(KeyError):
        entry = pwd.getpwnam("nobody")
        return f"{entry.pw_name} {grp.getgrgid(entry.pw_gid).gr_name}"
    return "root root"


def unprivileged_group() -> int | None:
    """Return the group of nginx's worker processes if they are not this user."""
    group = unprivileged_user().partition(" ")[2]
    return grp.getgrnam(group).gr_gid if group not in ("", "root") else None


class NginxSpec:
    """The embedded nginx.

    Args:
        program: path of nginx.
        run_dir: directory of its configuration, pid file and temporary files.
        listen_fd: the public socket, owned by the supervisor.
        lock_fd: the lock of the data directory.
        settings: called before each start and reload, to get the current workers.
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
        """Write nginx.conf with the current settings, unless it is that already.

        Raises:
            OSError: if it cannot be written; the old one is kept.
        """
        text = render(self._settings())
        # A restart must not need room on the disk.
        with suppress(OSError):
            if self._conf.read_text(encoding="utf-8") == text:
                return
        temporary = self._conf.with_suffix(".new")
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(self._conf)

    def reload(self, child: Child) -> None:
        """Reload a running nginx; open connections stay with its old worker processes."""
        self.write_configuration()
        child.signal(signal.SIGHUP)

    def reopen_logs(self, child: Child) -> None:
        """Have a running nginx open its log files again."""
        if self._settings().user:
            # Its worker processes cannot enter the private directory of the logs, so only new ones,
            # which inherit the opened files, write to the new files.
            self.reload(child)
        else:
            child.signal(signal.SIGUSR1)

    def launch(self, lane: str) -> Launch:
        """Write the configuration and return the command that starts nginx.

        Raises:
            OSError: if the configuration cannot be written and there is no old one.
        """
        try:
            self.write_configuration()
        except OSError as error:
            if not self._conf.exists():
                raise
            get_logger().error("nginx_configuration_kept", reason=str(error))
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
        """Probe nginx until it answers, then report ready; afterwards only its exit is watched."""
        while not await self._answers():  # noqa: ASYNC110 - nginx sends no readiness event
            await asyncio.sleep(_PROBE_INTERVAL_SECONDS)
        child.report("ready")

    async def _answers(self) -> bool:
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(_PROBE_TIMEOUT_SECONDS):
                reader, writer = await asyncio.open_unix_connection(str(self._probe))
                try:
                    writer.write(b"GET /probe HTTP/1.0\r\n\r\n")
                    return (await reader.readline()).startswith(b"HTTP/1.1 204")
                finally:
                    writer.close()
        return False

    def loggable(self, text: str) -> str:
        """Return the output without query strings."""
        kept = [line for line in text.splitlines() if "using inherited sockets" not in line]
        return _QUERY.sub("?…", "\n".join(kept))

    def ended(self, lane: str) -> None:
        """Remove the probe socket."""
        self._probe.unlink(missing_ok=True)
