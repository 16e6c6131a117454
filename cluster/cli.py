"""A command line in, one exit code out.

Rules
- Exit codes: 0 clean, 3 a child cannot boot, 69 a dependency is missing, 78 bad configuration.
- Whatever ends the program says so in one sentence on standard error that tells what to do.
- A worker's modules are imported by the worker only: the supervisor stays light.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import NoReturn

from cluster import __version__, config, log
from cluster.errors import ConfigError, DependencyMissing, ExitError

_EPILOG = (
    "exit codes: 0 clean, 3 a worker cannot boot, 69 a dependency is missing, 78 bad configuration"
)
_UP_FLAGS: Mapping[str, str] = {
    "workers": "server.workers",
    "host": "server.host",
    "port": "server.port",
    "admin_port": "server.admin_port",
    "worker_port_base": "server.worker_port_base",
    "redis_urls": "broker.redis_urls",
    "data_dir": "server.data_dir",
    "nginx": "server.nginx",
}


# Programs of their own, in the package `loadtest`: Locust replaces the sockets of its process.
_LOADTEST: Mapping[str, str] = {
    "drill": "break a cluster until each alert has fired and ended, and report it",
    "soak": "a healthy cluster under load: nothing may fire",
    "capacity": "measure what this machine can carry",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    words = sys.argv[1:] if argv is None else argv
    try:
        if words and words[0] in _LOADTEST:
            _become_loadtest(words)
        arguments = _parser(words[0] if words else "").parse_args(words)
        return int(arguments.run(arguments))
    except ConfigError as error:
        _tell(_told(error))
        return error.exit_code
    except ExitError as error:
        _tell(f"ws-cluster: {error}")
        return error.exit_code


def _become_loadtest(words: Sequence[str]) -> NoReturn:
    """Replace this process by the load test's.

    Raises:
        DependencyMissing: the extra is not installed.
    """
    missing = [name for name in ("loadtest", "locust", "rich") if find_spec(name) is None]
    if missing:
        raise DependencyMissing(
            f"{words[0]} needs {', '.join(missing)}: install the extra with"
            " pip install 'ws-cluster[loadtest]'"
        )
    os.execv(sys.executable, [sys.executable, "-m", "loadtest", *words])  # noqa: S606 - no shell is wanted


def _tell(text: str) -> None:
    sys.stderr.write(text + "\n")


def _told(error: ConfigError) -> str:
    count = len(error.problems)
    mistakes = "1 mistake" if count == 1 else f"{count} mistakes"
    lines = "\n".join(f"  {problem}" for problem in error.problems)
    return f"ws-cluster: the configuration has {mistakes}, please correct:\n{lines}"


def _parser(command: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ws-cluster",
        description="A self-hosted WebSocket cluster that speaks the Centrifuge protocol.",
        epilog=_EPILOG,
    )
    parser.add_argument("--version", action="version", version=f"ws-cluster {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_up(commands)
    _add_worker(commands)
    _add_check_config(commands)
    if command not in ("up", "worker"):
        # A supervisor and its workers start without the operator's side.
        from cluster import monitor

        monitor.add_commands(commands)
    for name, text in _LOADTEST.items():
        commands.add_parser(name, help=text, add_help=False)
    return parser


def _add_up(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    up = commands.add_parser(
        "up",
        help="run a cluster on this machine, in the foreground",
        description="Run nginx, an embedded Valkey and one worker per CPU until told to stop.",
        epilog=_EPILOG,
    )
    up.set_defaults(run=_up)
    add = up.add_argument
    add("--workers", type=int, metavar="N", help="worker processes; 0, the default, is one per CPU")
    add("--host", metavar="ADDR", help="address every door listens on (default 0.0.0.0)")
    add("--port", type=int, metavar="PORT", help="public door, served by nginx (default 8000)")
    add("--admin-port", type=int, metavar="PORT", help="operator's door (default 8001)")
    add("--worker-port-base", type=int, metavar="PORT", help="port of slot 0 (default 8101)")
    add(
        "--redis-url",
        action="append",
        dest="redis_urls",
        metavar="URL",
        help="use this Redis or Valkey instead of an embedded one; several are shards by channel",
    )
    add("--no-nginx", action="store_false", dest="nginx", default=None, help="run no nginx")
    add("--config", metavar="FILE", help="TOML or JSON file with options; flags overrule it")
    add("--data-dir", metavar="DIR", help="where state lives (default: the user's state directory)")


def _add_worker(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    worker = commands.add_parser("worker", help="one worker; started by the supervisor only")
    worker.set_defaults(run=_worker)
    for flag, kind in (("slot", int), ("lane", str), ("instance", str)):
        worker.add_argument(
            f"--{flag}", type=kind, required=True, help=f"given by the supervisor: {flag}"
        )
    worker.add_argument("--patient", action="store_true", help="wait for a store that is away")
    for flag in ("listen-fd", "status-fd", "config-fd"):
        worker.add_argument(
            f"--{flag}", type=int, required=True, metavar="FD", help="an inherited file descriptor"
        )


def _add_check_config(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    check = commands.add_parser(
        "check-config", help="say what is wrong with a configuration file", epilog=_EPILOG
    )
    check.set_defaults(run=_check_config)
    check.add_argument("file", metavar="FILE", help="TOML or JSON file with options")
    check.add_argument(
        "--print",
        action="store_true",
        dest="shows",
        help="print the resolved options, secrets as ***",
    )


def _flags(arguments: argparse.Namespace) -> dict[str, object]:
    given = vars(arguments)
    return {key: given[name] for name, key in _UP_FLAGS.items() if given[name] is not None}


def _up(arguments: argparse.Namespace) -> int:
    from cluster import supervisor

    def load() -> config.Config:
        return config.load(arguments.config, env=os.environ, flags=_flags(arguments))

    return supervisor.run(load(), reload=load)


def _worker(arguments: argparse.Namespace) -> int:
    from cluster import worker

    with os.fdopen(arguments.config_fd, "rb") as document:
        settings = config.from_json(document.read())
    log.configure(settings.log, instance=arguments.instance, worker=arguments.lane)
    log.write_inherited_file()
    return worker.run(
        settings,
        slot=arguments.slot,
        lane=arguments.lane,
        instance=arguments.instance,
        listen_fd=arguments.listen_fd,
        status_fd=arguments.status_fd,
        is_patient=arguments.patient,
    )


def _check_config(arguments: argparse.Namespace) -> int:
    settings = config.load(arguments.file, env=os.environ)
    if arguments.shows:
        sys.stdout.write(json.dumps(config.printable(settings), indent=2) + "\n")
    else:
        sys.stdout.write(f"{arguments.file} is fine\n")
    return 0
