"""The command line: parses arguments, runs a command, returns an exit code.

Rules
- Exit codes: 0 clean, 3 a child cannot boot, 69 a dependency is missing, 78 bad configuration.
- An error is printed to standard error as one sentence that says what to do.
- Only a worker imports the modules of a worker, to keep the supervisor small.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from typing import NoReturn

from cluster import __version__, config, log
from cluster.config.reader import problem
from cluster.errors import ConfigError, DependencyMissing, ExitError
from cluster.quick_imports import no_garbage_collection
from cluster.terminal_text import escaped_lines

_EPILOG = (
    "exit codes: 0 clean, 3 a worker cannot boot, 69 a dependency is missing, 78 bad configuration"
)
_UP_FLAGS: Mapping[str, str] = {
    "workers": "server.workers",
    "host": "server.host",
    "port": "server.port",
    "admin_host": "server.admin_host",
    "admin_port": "server.admin_port",
    "worker_port_base": "server.worker_port_base",
    "redis_urls": "broker.redis_urls",
    "data_dir": "server.data_dir",
    "nginx": "server.nginx",
    "app": "app.target",
    "reload": "app.reload",
}


# These run as separate programs (package `loadtest`): Locust replaces the sockets of its process.
_LOADTEST: Mapping[str, str] = {
    "drill": "inject faults into a cluster until each alert has fired and resolved, and write a report",
    "soak": "run a healthy cluster under load; no alert may fire",
    "capacity": "measure what this machine can carry",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    _open_standard_streams()
    arguments = sys.argv[1:] if argv is None else argv
    try:
        if arguments and arguments[0] in _LOADTEST:
            _exec_loadtest(arguments)
        options = _parser(arguments[0] if arguments else "").parse_args(arguments)
        return int(options.run(options))
    except ConfigError as error:
        _print_error(_config_error_text(error))
        return error.exit_code
    except ExitError as error:
        _print_error(f"ws-cluster: {error}")
        return error.exit_code


def _open_standard_streams() -> None:
    """Open /dev/null in place of closed standard streams.

    Otherwise the next file or socket gets the number of the closed stream, and children would
    write their output to it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number: exactly this one.
            os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(number, True)
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 - it stays open until the end
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115


def _exec_loadtest(arguments: Sequence[str]) -> NoReturn:
    """Replace this process by `python -m loadtest`.

    Raises:
        DependencyMissing: if the extra is not installed.
    """
    missing = [name for name in ("loadtest", "locust", "rich") if find_spec(name) is None]
    if missing:
        raise DependencyMissing(
            f"{arguments[0]} needs {', '.join(missing)}: install the extra with"
            " pip install 'ws-cluster[loadtest]'"
        )
    os.execv(sys.executable, [sys.executable, "-m", "loadtest", *arguments])  # noqa: S606 - no shell is wanted


def _print_error(text: str) -> None:
    log.write_text(sys.stderr, escaped_lines(text) + "\n")


def _config_error_text(error: ConfigError) -> str:
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
        # The supervisor and its workers import no other commands.
        from cluster import compose_cli, doctor, import_config, monitor, token_cli

        token_cli.add_commands(commands)
        doctor.add_commands(commands)
        compose_cli.add_commands(commands)
        import_config.add_commands(commands)
        monitor.add_commands(commands)
    for name, text in _LOADTEST.items():
        commands.add_parser(name, help=text, add_help=False)
    return parser


def _add_up(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    up = commands.add_parser(
        "up",
        help="run a cluster on this machine, in the foreground",
        description="Run nginx, an embedded Valkey and one worker per CPU until they are stopped.",
        epilog=_EPILOG,
    )
    up.set_defaults(run=_up)
    add = up.add_argument
    add("--workers", type=int, metavar="N", help="worker processes; 0, the default, is one per CPU")
    add("--host", metavar="ADDR", help="address of the public port (default 0.0.0.0)")
    add("--port", type=int, metavar="PORT", help="public port, served by nginx (default 8000)")
    add("--admin-host", metavar="ADDR", help="address of the admin port (default 127.0.0.1)")
    add(
        "--admin-port",
        type=int,
        metavar="PORT",
        help="admin port: console, metrics, health (default 8001)",
    )
    add("--worker-port-base", type=int, metavar="PORT", help="port of slot 0 (default 8101)")
    add(
        "--redis-url",
        action="append",
        dest="redis_urls",
        metavar="URL",
        help="use this Redis or Valkey instead of an embedded one; give several to shard by channel",
    )
    add("--app", metavar="MODULE:APP", help="the application in Python that the workers run")
    add(
        "--reload",
        action="store_true",
        default=None,
        help="roll the workers when the code of the application changes, for development",
    )
    add("--no-nginx", action="store_false", dest="nginx", default=None, help="run no nginx")
    source = up.add_mutually_exclusive_group()
    source.add_argument(
        "--config", metavar="FILE", help="TOML or JSON file with options; flags override it"
    )
    source.add_argument(
        "--development",
        action="store_true",
        help="insecure mode, on the loopback address only: for trying things out on this machine",
    )
    add(
        "--data-dir",
        metavar="DIR",
        help="data directory (default: below the user's state directory)",
    )


def _add_worker(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    worker = commands.add_parser(
        "worker", help="run one worker; only the supervisor starts this command"
    )
    worker.set_defaults(run=_worker)
    for flag, kind in (("slot", int), ("lane", str), ("instance", str)):
        worker.add_argument(
            f"--{flag}", type=kind, required=True, help=f"given by the supervisor: {flag}"
        )
    worker.add_argument(
        "--patient",
        action="store_true",
        help="wait for an unreachable store instead of failing to boot",
    )
    for flag in ("listen-fd", "status-fd", "config-fd"):
        worker.add_argument(
            f"--{flag}", type=int, required=True, metavar="FD", help="an inherited file descriptor"
        )
    worker.add_argument(
        "--local-fd", type=int, metavar="FD", help="an inherited file descriptor: a unix socket"
    )


def _add_check_config(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    check = commands.add_parser(
        "check-config", help="check a configuration file and report all mistakes", epilog=_EPILOG
    )
    check.set_defaults(run=_check_config)
    check.add_argument("file", metavar="FILE", help="TOML or JSON file with options")
    check.add_argument(
        "--print",
        action="store_true",
        dest="prints_options",
        help="print the resolved options, secrets as ***",
    )


def _flags(arguments: argparse.Namespace) -> dict[str, object]:
    given = vars(arguments)
    return {key: given[name] for name, key in _UP_FLAGS.items() if given[name] is not None}


def _up(arguments: argparse.Namespace) -> int:
    with no_garbage_collection():
        from cluster import supervisor

    file = str(config.DEVELOPMENT_FILE) if arguments.development else arguments.config

    def load() -> config.Config:
        return config.load(file, env=os.environ, flags=_flags(arguments))

    settings = load()
    if settings.app.target:
        _check_application(settings.app.target)
    return supervisor.run(settings, reload=load)


def _check_application(target: str) -> None:
    """Import the application in a process of its own: this one lives on, and must stay small.

    Raises:
        ConfigError: if it cannot be used.
    """
    command = [sys.executable, "-m", "cluster.application.app_loading", target]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False)
    if done.returncode:
        told = done.stdout.decode(errors="replace").strip().rpartition("\n")[2]
        reason = told or f"the program that imports it has ended with {done.returncode}"
        raise ConfigError([problem("app.target", target, reason)])


def _worker(arguments: argparse.Namespace) -> int:
    with no_garbage_collection():
        from cluster import worker
        from cluster.application.app_loading import load

    with os.fdopen(arguments.config_fd, "rb") as document:
        settings = config.from_json(document.read())
    log.configure(settings.log, instance=arguments.instance, worker=arguments.lane, is_final=True)
    log.write_inherited_file()
    log.write_prints_without_blocking()
    return worker.run(
        settings,
        slot=arguments.slot,
        lane=arguments.lane,
        instance=arguments.instance,
        listen_fd=arguments.listen_fd,
        local_fd=arguments.local_fd,
        status_fd=arguments.status_fd,
        is_patient=arguments.patient,
        load_application=partial(load, settings.app.target) if settings.app.target else None,
    )


def _check_config(arguments: argparse.Namespace) -> int:
    settings = config.load(arguments.file, env=os.environ)
    if arguments.prints_options:
        sys.stdout.write(json.dumps(config.printable(settings), indent=2) + "\n")
    else:
        sys.stdout.write(f"{arguments.file} is fine\n")
    if ignored := config.service_variables(os.environ):
        sys.stderr.write(f"ignored, as of a Service of Kubernetes: {', '.join(ignored)}\n")
    return 0
