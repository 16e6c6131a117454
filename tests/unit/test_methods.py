"""The methods of the protocol stand in one table; everything else agrees with it."""

from __future__ import annotations

import ast

import pytest

from cluster import command_params, methods
from cluster.connection import state_machine
from cluster.metrics import catalogue
from cluster.metrics.counters import Counters
from tests.architecture.tree import ROOT


def test_the_protocol_reads_exactly_the_methods_of_the_table():
    assert set(methods.METHODS) == set(command_params.PARAMS)
    assert len(set(methods.METHODS)) == len(methods.METHODS)


def test_the_connection_handles_exactly_the_methods_of_the_table():
    assert tuple(state_machine._HANDLERS) == methods.METHODS


@pytest.mark.parametrize("name", ["app_commands_total", "app_command_duration_seconds"])
def test_the_metrics_of_commands_have_exactly_the_methods_of_the_table(name: str):
    [family] = [family for family in catalogue.FAMILIES if family.name == name]
    assert family.labels == {"method": methods.METHODS}


def test_every_method_has_its_counters():
    counters = Counters()
    assert tuple(counters.commands) == tuple(counters.command_duration) == methods.METHODS


def test_no_other_module_of_the_cluster_lists_the_methods():
    found = []
    for path in sorted((ROOT / "cluster").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Tuple | ast.List | ast.Set):
                words = {e.value for e in node.elts if isinstance(e, ast.Constant)}
                if len(words & set(methods.METHODS)) > len(methods.METHODS) // 2:
                    found.append(str(path.relative_to(ROOT)))
    # The protocol's and the server API's.
    assert found == ["cluster/methods.py", "cluster/methods.py"]


def test_every_listening_socket_has_the_same_backlog():
    defined = [
        str(path.relative_to(ROOT))
        for path in sorted((ROOT / "cluster").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Assign | ast.AnnAssign)
        and "BACKLOG"
        in {
            getattr(t, "id", "")
            for t in getattr(node, "targets", None) or [getattr(node, "target", None)]
        }
    ]
    assert defined == ["cluster/children/listeners.py"]
