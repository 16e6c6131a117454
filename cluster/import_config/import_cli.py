"""The command `import-config`: a file of Centrifugo in, ours out, and a report.

The configuration goes to standard output or to a file that only its owner may read, because it holds
keys; what is said about it goes to standard error.
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from cluster.errors import ConfigError, UsageError
from cluster.import_config.conversion import Conversion, convert
from cluster.import_config.formats import read_document
from cluster.import_config.toml_text import toml
from cluster.terminal_text import print_line

_HEAD: Final = """\
# Made by ws-cluster import-config from {source}. It holds secrets: keep it out of version control.
# Every option: docs/reference/config.md. Check a change with ws-cluster check-config.

"""
#: Lines of one part of the report; a file with a thousand namespaces can have thousands.
_MAXIMUM_LINES: Final = 200


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser of `ws-cluster`."""
    parser = commands.add_parser(
        "import-config",
        help="turn a configuration of Centrifugo into one of ws-cluster",
        description="Write a configuration with the options of a Centrifugo 5 or 6, and list on standard"
        " error what will differ and what has no counterpart.",
        epilog="exit codes: 0 written, 3 the file cannot be read or written, 78 written, but something has"
        " to be changed in it before a cluster can start",
    )
    parser.set_defaults(run=_import_config)
    parser.add_argument("file", metavar="FILE", help="JSON, YAML or TOML file of Centrifugo")
    parser.add_argument(
        "-o", dest="output", metavar="FILE", help="file to write (default: standard output)"
    )
    parser.add_argument(
        "--force", action="store_true", help="replace the file that -o names, if it exists"
    )


def _import_config(arguments: argparse.Namespace) -> int:
    output = arguments.output
    if output and not arguments.force and os.path.lexists(output):
        raise UsageError(f"{output} exists and was not changed; name another file, or add --force")
    conversion = convert(read_document(arguments.file))
    text = _HEAD.format(source=_printable(Path(arguments.file).name)) + toml(conversion.tree)
    if output:
        _write(output, text, replaces=arguments.force)
    else:
        sys.stdout.write(text)
        sys.stdout.flush()
    for line in _report(conversion, output or "standard output"):
        print_line(line, sys.stderr)
    if conversion.problems:
        return ConfigError.exit_code
    if output:
        print_line(f"start with: ws-cluster up --config {output}", sys.stderr)
    return 0


def _printable(name: str) -> str:
    return "".join(one if one.isprintable() else "?" for one in name)


def _write(path: str, text: str, *, replaces: bool) -> None:
    """Write a private file as a whole.

    Raises:
        UsageError: if it cannot be written, or exists and is not to be replaced.
    """
    # A draft beside the file, which a rename puts in its place.
    target = f"{path}.{secrets.token_hex(4)}" if replaces else path
    try:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
            if replaces:
                Path(target).replace(path)
        except BaseException:
            Path(target).unlink(missing_ok=True)
            raise
    except FileExistsError:
        raise UsageError(
            f"{path} exists and was not changed; name another file, or add --force"
        ) from None
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror or error}") from None


def _report(conversion: Conversion, where: str) -> Iterator[str]:
    options = "1 option" if conversion.count == 1 else f"{conversion.count} options"
    yield f"{options} written to {where}"
    yield from _part("will differ:", conversion.differs)
    yield from _part("no counterpart:", conversion.lost)
    yield from _part("limits that Centrifugo does not have:", conversion.limits)
    if conversion.problems:
        problems = {
            one.key: f"{one.value} is not allowed; {one.allowed}" for one in conversion.problems
        }
        yield from _part("to change before a cluster can start:", problems)


def _part(title: str, remarks: Mapping[str, str]) -> Iterator[str]:
    if not remarks:
        return
    yield title
    for name, sentence in list(remarks.items())[:_MAXIMUM_LINES]:
        yield f"  {name}: {sentence}"
    if len(remarks) > _MAXIMUM_LINES:
        yield f"  … and {len(remarks) - _MAXIMUM_LINES} more"
