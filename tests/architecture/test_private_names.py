"""The private names of libraries that the code uses are listed, exist and have not changed.

The list stands twice: in docs/adr/0006 for the reader, with the reason of each, and in `NAMES` with
what this test can compare. test_dependencies holds the libraries to one
minor version.
"""

from __future__ import annotations

import ast
import asyncio
import importlib
import inspect
import re
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import hiredis
import prometheus_client
import pytest
from aiohttp._websocket.helpers import websocket_mask
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpRequestParser

from tests.architecture.tree import ROOT, python_files

ADR = "docs/adr/0006-own-protocol-after-the-handshake.md"
LIBRARIES = {"aiohttp": "aiohttp", "prometheus_client": "prometheus-client", "hiredis": "hiredis"}
FOLDERS = ("cluster", "loadtest")

#: Modules whose names are documented, except those that begin with an underscore.
DOCUMENTED = {
    "aiohttp",
    "aiohttp.abc",
    "aiohttp.hdrs",
    "aiohttp.test_utils",
    "aiohttp.web",
    "prometheus_client",
    "prometheus_client.core",
    "prometheus_client.exposition",
    "prometheus_client.parser",
    "prometheus_client.registry",
}

#: Each name with its parameters ("=" marks a default), or "" where it has none to compare.
NAMES = {
    "aiohttp._websocket.helpers.websocket_mask": "",
    "aiohttp.base_protocol.BaseProtocol": "(loop, parser=)",
    "aiohttp.http.HttpProcessingError": "(*code=, *message=, *headers=)",
    "aiohttp.http.HttpRequestParser": "",
    "aiohttp.http.HttpRequestParser.feed_data": "(self, incoming_data)",
    "aiohttp.http.HttpVersion": "(major, minor)",
    "aiohttp.http.HttpVersion11": "",
    "aiohttp.http.RawRequestMessage": "",
    "aiohttp.http.RawRequestMessage.headers": "",
    "aiohttp.http.RawRequestMessage.method": "",
    "aiohttp.http.RawRequestMessage.path": "",
    "aiohttp.http.RawRequestMessage.url": "",
    "aiohttp.http.RawRequestMessage.version": "",
    "aiohttp.web.AppRunner._make_server": "(self)",
    "aiohttp.web.BaseRequest.protocol": "",
    "aiohttp.web.RequestHandler._buffer_paused": "",
    "aiohttp.web.RequestHandler._close": "",
    "aiohttp.web.RequestHandler._force_close": "",
    "aiohttp.web.RequestHandler._messages": "",
    "aiohttp.web.RequestHandler._pause_transport_reading": "(self)",
    "aiohttp.web.RequestHandler._reading_paused": "",
    "aiohttp.web.RequestHandler._request_count": "",
    "aiohttp.web.RequestHandler._resume_transport_reading": "(self)",
    "aiohttp.web.RequestHandler._upgraded": "",
    "aiohttp.web.RequestHandler._waiter": "",
    "aiohttp.web.RequestHandler.connection_lost": "(self, exc)",
    "aiohttp.web.RequestHandler.connection_made": "(self, transport)",
    "aiohttp.web.RequestHandler.data_received": "(self, data)",
    "aiohttp.web.RequestHandler.finish_response": "(self, request, resp, start_time)",
    "aiohttp.web.RequestHandler.force_close": "(self)",
    "aiohttp.web.RequestHandler.set_parser": "(self, parser, data_received_cb=)",
    "aiohttp.web.RequestHandler.transport": "",
    "aiohttp.web_protocol._ErrInfo": "(status, exc, message)",
    "hiredis.ProtocolError": "",
    "hiredis.Reader": "",
    "hiredis.Reader.feed": "",
    "hiredis.Reader.gets": "",
    "hiredis.pack_command": "",
    "prometheus_client.Histogram._buckets": "",
    "prometheus_client.Histogram._sum": "",
    "prometheus_client.metrics.values.ValueClass": "",
    "prometheus_client.metrics_core.Metric": "(name, documentation, typ, unit=)",
    "prometheus_client.mmap_dict.MmapedDict": "(filename, read_mode=)",
    "prometheus_client.mmap_dict.MmapedDict.close": "(self)",
    "prometheus_client.mmap_dict.MmapedDict.read_all_values_from_file": "(filename)",
    "prometheus_client.mmap_dict.MmapedDict.write_value": "(self, key, value, timestamp)",
    "prometheus_client.multiprocess.MultiProcessCollector": "",
    "prometheus_client.multiprocess.MultiProcessCollector._accumulate_metrics": (
        "(metrics, accumulate)"
    ),
    "prometheus_client.utils.floatToGoString": "(d)",
    "prometheus_client.values.MmapedDict": "(filename, read_mode=)",
    "prometheus_client.values.MultiProcessValue": "(process_identifier=)",
}


# --- each name exists and is what it was ---------------------------------------------------


def library_of(name: str) -> str:
    distribution = LIBRARIES[name.partition(".")[0]]
    return f"{distribution} {version(distribution)}"


def resolve(name: str) -> Any:
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:end]))
        except ImportError:
            continue
        for part in parts[end:]:
            if found is prometheus_client.Histogram:
                # It makes its parts as it is made.
                found = found("a_histogram", "one", registry=None)
            found = getattr(found, part)
        return found
    raise ImportError(name)


def parameters(function: Any) -> str:
    shown = []
    for one in inspect.signature(function).parameters.values():
        star = "*" if one.kind is one.KEYWORD_ONLY else ""
        shown.append(f"{star}{one.name}{'' if one.default is one.empty else '='}")
    return f"({', '.join(shown)})"


@pytest.mark.parametrize("name", NAMES)
def test_a_private_name_is_still_there_and_takes_the_same_arguments(name: str):
    try:
        found = resolve(name)
    except (AttributeError, ImportError):
        pytest.fail(f"{name} has disappeared from {library_of(name)}: see {ADR}")
    if NAMES[name]:
        now = parameters(found)
        assert now == NAMES[name], f"{name} has changed in {library_of(name)}: see {ADR}"


async def test_the_request_parser_takes_our_arguments_and_says_what_we_read():
    loop = asyncio.get_running_loop()
    parser = HttpRequestParser(
        BaseProtocol(loop), loop, 65_536, auto_decompress=False, max_msg_queue_size=2
    )
    messages, is_upgraded, tail = parser.feed_data(
        b"GET /a?b=1 HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\ntail"
    )
    ((message, _),) = messages
    assert (message.method, message.path, message.url.path) == ("GET", "/a?b=1", "/a")
    assert (message.version, message.headers["host"]) == ((1, 1), "h")
    assert (bool(is_upgraded), bytes(tail)) == (True, b"tail")


def test_the_mask_is_applied_in_place():
    payload = bytearray(b"hello, masks")
    websocket_mask(b"\x01\x02\x03\x04", payload)
    assert payload == b"igohn.#i`qhw"


def test_the_parts_of_a_histogram_take_a_sum_at_once():
    histogram = prometheus_client.Histogram("a", "one", registry=None, buckets=(1.0,))
    for part in (*histogram._buckets, histogram._sum):
        part.inc(5)
        assert part.get() == 5


def test_the_resp_reader_takes_our_arguments_and_packs_our_types():
    reader = hiredis.Reader(replyError=lambda text: KeyError(text))
    reader.feed(b"-ERR no\r\n+OK\r\n")
    assert isinstance(reader.gets(), KeyError)
    assert (reader.gets(), reader.gets()) == (b"OK", False)
    packed = hiredis.pack_command(("A", b"b", 1, 1.5))  # type: ignore[arg-type]
    assert packed == b"*4\r\n$1\r\nA\r\n$1\r\nb\r\n$1\r\n1\r\n$3\r\n1.5\r\n"


# --- the list is the code's ----------------------------------------------------------------


def is_private(module: str, name: str) -> bool:
    return module.partition(".")[0] in LIBRARIES and (
        module not in DOCUMENTED or name.startswith("_")
    )


def imported(tree: ast.Module) -> Iterator[str]:
    """Private names that a module imports, or reaches through a module it has imported."""
    modules = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                if is_private(node.module, alias.name) and full not in DOCUMENTED:
                    yield full
        elif isinstance(node, ast.Import):
            modules |= {one.name for one in node.names if one.name.partition(".")[0] in LIBRARIES}
    roots = {module.partition(".")[0] for module in modules}
    chains = {dotted(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for chain in chains:
        module, _, name = chain.rpartition(".")
        # The longest chain only: what stands before its last dot is a part of it.
        if any(other.startswith(f"{chain}.") for other in chains):
            continue
        if module.partition(".")[0] in roots and is_private(module, name):
            yield chain


def dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        before = dotted(node.value)
        return f"{before}.{node.attr}" if before else ""
    return node.id if isinstance(node, ast.Name) else ""


def members(tree: ast.Module) -> set[str]:
    """Private attributes that a module takes from objects other than its own."""
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and re.match(r"_[^_]", node.attr)
        and not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"))
    }


def uses_a_library(tree: ast.Module) -> bool:
    names = {
        one.name for node in ast.walk(tree) if isinstance(node, ast.Import) for one in node.names
    }
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    return any(name.partition(".")[0] in LIBRARIES for name in names)


def defined(tree: ast.Module) -> set[str]:
    """Names that a module defines: functions, variables, attributes of self, slots."""
    found = {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            found.add(node.id if isinstance(node, ast.Name) else node.attr)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)
    return found


#: What collections.namedtuple documents although it begins with an underscore.
NAMEDTUPLE = {"_asdict", "_fields", "_make", "_replace"}


def used() -> dict[str, set[str]]:
    """Each private name with the files that use it; an attribute by its last part."""
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in python_files(*FOLDERS)}
    found: dict[str, set[str]] = {}
    for path, tree in trees.items():
        names = set(imported(tree))
        if uses_a_library(tree):
            names |= members(tree) - defined(tree) - NAMEDTUPLE
        for name in names:
            found.setdefault(name, set()).add(str(path.relative_to(ROOT)))
    return found


def test_every_private_name_that_the_code_uses_is_listed():
    known = set(NAMES) | {name.rpartition(".")[2] for name in NAMES}
    unlisted = {name: sorted(files) for name, files in used().items() if name not in known}
    assert unlisted == {}, f"add them to NAMES and to {ADR}, or do without"


def test_every_name_of_the_list_is_used():
    text = "\n".join(path.read_text(encoding="utf-8") for path in python_files(*FOLDERS))
    last = {name: name.rpartition(".")[2] for name in NAMES}
    unused = [name for name, part in last.items() if not re.search(rf"\b{part}\b", text)]
    assert unused == [], f"remove them from NAMES and from {ADR}"


def test_the_list_of_the_decision_is_this_list():
    rows = re.findall(r"(?m)^\| `([\w.]+)` \|", (ROOT / ADR).read_text(encoding="utf-8"))
    assert sorted(rows) == sorted(NAMES)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("from aiohttp._websocket.helpers import ws_ext_parse", "aiohttp._websocket.helpers.ws_ext_parse"),
        ("from aiohttp import _cookie_helpers", "aiohttp._cookie_helpers"),
        ("import prometheus_client.values\nprometheus_client.values.get_value_class()",
         "prometheus_client.values.get_value_class"),
        ("import aiohttp\naiohttp.web._run_app", "aiohttp.web._run_app"),
    ],
)  # fmt: skip
def test_a_private_name_is_noticed(source: str, name: str):
    assert name in set(imported(ast.parse(source)))


def test_a_documented_name_is_none_of_these():
    source = "from aiohttp import web, hdrs\nimport aiohttp\naiohttp.ClientSession\nweb.Request"
    assert set(imported(ast.parse(source))) == set()
