"""`ws-cluster import-config`: the files that it reads and writes."""

from __future__ import annotations

import stat
import tomllib
from pathlib import Path

import pytest

from cluster.cli import main
from cluster.import_config.formats import MAXIMUM_BYTES
from tests.unit.test_import_config import KEY, SAMPLES


def test_a_file_is_replaced_only_by_force(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = tmp_path / "ours.toml"
    file.write_text("before")
    file.chmod(0o644)
    command = ["import-config", str(SAMPLES / "six.toml"), "-o", str(file)]
    assert main(command) == 3
    assert (
        "exists and was not changed; name another file, or add --force" in capsys.readouterr().err
    )
    assert file.read_text() == "before"
    assert main([*command, "--force"]) == 0
    assert main(["check-config", str(file)]) == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [file]


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = tmp_path / "none" / "ours.toml"
    assert main(["import-config", str(SAMPLES / "six.toml"), "-o", str(file)]) == 3
    assert f"{file} cannot be written: No such file or directory" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.ini", b"", "name a file that ends in .json, .yaml, .yml or .toml"),
        ("a.json", b"{", "is not JSON: Expecting property name"),
        ("a.json", b"[]", "must hold a table of options"),
        ("a.json", b'{"port": 1, "port": 2}', "the option port is given twice"),
        ("a.json", b'{"port": NaN}', "NaN is no number of JSON"),
        ("a.json", b'{"port": 1e999}', "holds inf, which no option can be"),
        ("a.json", rb'{"token_hmac_secret_key": "\ud800"}', "half of a surrogate pair"),
        ("a.json", b"\xff", "is not UTF-8: see byte 0"),
        ("a.json", b"[" * 100_000, "is nested too deeply"),
        ("a.json", b'{"a":' * 40 + b"1" + b"}" * 40, "at most 32 levels"),
        ("a.json", b" " * (MAXIMUM_BYTES + 1), "so it is no configuration"),
        ("a.yaml", b"a: [1", "is not YAML: line "),
        ("a.yaml", b"a: &x 1\nb: *x", "line 2 has an alias (*x)"),
        ("a.yaml", b"a: !!python/object/apply:os.system [id]", "is not YAML: line "),
        ("a.yaml", b"a: " + b"[" * 50_000, "is nested too deeply"),
        ("a.yaml", b"a: .nan", "holds nan"),
        ("a.yaml", b"a: !!binary aGk=", "a kind that no option has: bytes"),
        ("a.yaml", b"a: 2026-13-01", "is not YAML: month must be in 1..12"),
        ("a.yaml", b"", "must hold a table of options"),
        ("a.yml", b"- a", "must hold a table of options"),
        ("a.toml", b"a = ", "is not TOML: Invalid value (at end of document)"),
        ("a.toml", b"a = " + b"[" * 50_000, "is nested too deeply"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_read_is_refused_with_one_sentence(
    name: str, content: bytes, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    file = tmp_path / name
    file.write_bytes(content)
    assert main(["import-config", str(file), "-o", str(tmp_path / "ours.toml")]) == 3
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1
    assert not (tmp_path / "ours.toml").exists()


def test_a_file_that_does_not_exist_is_named(capsys: pytest.CaptureFixture[str]):
    assert main(["import-config", "/nowhere/config.json"]) == 3
    assert "/nowhere/config.json cannot be read: No such file" in capsys.readouterr().err


def test_null_is_as_good_as_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = tmp_path / "a.yaml"
    file.write_text(f"client:\n  token: {{hmac_secret_key: {KEY}, audience: null}}\nsse:\n")
    assert main(["import-config", str(file)]) == 0
    written, said = capsys.readouterr()
    assert tomllib.loads(written) == {"client": {"token": {"hmac_secret_key": KEY}}}
    head, *rest = said.splitlines()
    assert head == "1 option written to standard output"
    assert rest[0] == "limits that Centrifugo does not have:"
    assert all(line.startswith("  client.") for line in rest[1:])
