"""The import contracts of pyproject.toml hold, and they are able to fail."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.tree import ROOT

LINT = (
    sys.executable,
    "-c",
    "from importlinter.cli import lint_imports_command as main; main(['--no-cache'])",
)


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        LINT, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=120
    )


@pytest.fixture
def copy_of_the_code(tmp_path: Path) -> Path:
    for package in ("cluster", "loadtest"):
        ignored = shutil.ignore_patterns("__py*")
        shutil.copytree(ROOT / package, tmp_path / package, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_every_import_contract_holds():
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_import_up_the_ladder_is_noticed(copy_of_the_code: Path):
    errors = copy_of_the_code / "cluster" / "errors.py"
    errors.write_text(errors.read_text() + "\nimport cluster.config\n")
    done = lint_imports(copy_of_the_code)
    assert done.returncode == 1
    assert "Imports point strictly down the ladder BROKEN" in done.stdout


def test_a_module_without_a_place_on_the_ladder_is_noticed(copy_of_the_code: Path):
    (copy_of_the_code / "cluster" / "newcomer.py").write_text('"""Has no place yet."""\n')
    done = lint_imports(copy_of_the_code)
    assert done.returncode == 1
    assert "newcomer" in done.stdout


def test_a_clock_in_the_core_is_noticed(copy_of_the_code: Path):
    core = copy_of_the_code / "cluster" / "hub.py"
    if not core.exists():
        core = core.with_suffix("") / "__init__.py"
    core.write_text(core.read_text() + "\nimport time\n")
    done = lint_imports(copy_of_the_code)
    assert done.returncode == 1
    assert "The core knows no event loop, socket, store or clock BROKEN" in done.stdout


@pytest.mark.parametrize(
    ("module", "imported", "contract"),
    [
        ("alerting/http.py", "cluster.alerting.prometheus", "Inside alerting"),
        ("monitor/incidents/store.py", "cluster.monitor.commands.status", "Inside monitor"),
        ("monitor/commands/logs.py", "cluster.monitor.commands.history", "Commands do not import"),
        ("monitor/incidents/routing.py", "cluster.monitor.incidents.tracker", "The tracker stands"),
        ("monitor/stack/render.py", "cluster.monitor.stack.setup", "The stack is set up"),
    ],
)
def test_an_import_up_the_layers_inside_a_package_is_noticed(
    copy_of_the_code: Path, module: str, imported: str, contract: str
):
    file = copy_of_the_code / "cluster" / module
    file.write_text(f"{file.read_text()}\nimport {imported}\n")
    done = lint_imports(copy_of_the_code)
    assert done.returncode == 1
    assert any(
        line.startswith(contract) and line.endswith("BROKEN") for line in done.stdout.splitlines()
    ), done.stdout


def test_a_fault_that_imports_the_runner_is_noticed(copy_of_the_code: Path):
    roll = copy_of_the_code / "loadtest" / "drilling" / "faults" / "roll.py"
    roll.write_text(roll.read_text() + "\nimport loadtest.drilling.runner\n")
    done = lint_imports(copy_of_the_code)
    assert done.returncode == 1
    assert "A drill's parts import strictly down BROKEN" in done.stdout
    assert "No import cycles, at no depth BROKEN" in done.stdout


def test_a_module_without_a_layer_in_drilling_is_noticed(copy_of_the_code: Path):
    newcomer = copy_of_the_code / "loadtest" / "drilling" / "newcomer.py"
    newcomer.write_text('"""Has no layer yet."""\n')
    done = lint_imports(copy_of_the_code)
    assert done.returncode == 1
    assert "newcomer" in done.stdout


def test_a_runner_that_imports_one_drill_is_noticed(copy_of_the_code: Path):
    runner = copy_of_the_code / "loadtest" / "drilling" / "runner.py"
    runner.write_text(runner.read_text() + "\nimport loadtest.drills.watchdog\n")
    done = lint_imports(copy_of_the_code)
    assert done.returncode == 1
    assert "what runs them knows no drill BROKEN" in done.stdout
