"""genconfig, gentoken and checktoken: what they write is what the cluster accepts."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from cluster import config
from cluster.cli import main
from tests.unit.local_worker import LocalWorker, entered


@pytest.fixture
def file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    path = str(tmp_path / "ws-cluster.toml")
    assert main(["genconfig", path]) == 0
    capsys.readouterr()
    return path


def test_a_generated_configuration_is_private_valid_and_has_three_different_keys(file: str):
    assert stat.S_IMODE(Path(file).stat().st_mode) == 0o600
    assert main(["check-config", file]) == 0
    made = config.load(file, env={})
    keys = {made.client.token.hmac_secret_key, made.admin.key, made.http_api.key}
    assert {len(key) for key in keys} == {86}
    assert len(keys) == 3
    assert not made.client.insecure


def test_no_file_is_overwritten(file: str, capsys: pytest.CaptureFixture[str]):
    before = Path(file).read_text()
    assert main(["genconfig", file]) == 3
    assert "exists and was not changed" in capsys.readouterr().err
    assert Path(file).read_text() == before


def test_two_configurations_share_no_key(tmp_path: Path):
    for name in ("a.toml", "b.toml"):
        main(["genconfig", str(tmp_path / name)])
    a, b = (config.load(str(tmp_path / name), env={}) for name in ("a.toml", "b.toml"))
    assert a.admin.key != b.admin.key


async def test_a_client_connects_with_a_generated_token(
    file: str, capsys: pytest.CaptureFixture[str]
):
    assert (
        main(["gentoken", "--config", file, "--user", "42", "--info", '{"name": "Ann", "n": 1.10}'])
        == 0
    )
    token, said = capsys.readouterr()
    assert said.startswith('a connection token for user "42", valid until ')
    async with LocalWorker(config.load(file, env={})).open() as worker:
        await entered(worker, token=token.strip())
        [client] = worker.server.clients
        assert (client.connection.user, client.connection.info) == (
            "42",
            b'{"name": "Ann", "n": 1.10}',
        )
        assert client.connection.expires_at > 0


def test_a_token_is_checked(file: str, capsys: pytest.CaptureFixture[str]):
    main(["gentoken", "--config", file, "--user", "42", "--ttl", "0"])
    token = capsys.readouterr().out.strip()
    assert main(["checktoken", "--config", file, token]) == 0
    assert capsys.readouterr().out == 'user "42", valid for ever\n'
    assert main(["checktoken", "--config", file, token[:-2]]) == 1
    assert "the token is not accepted" in capsys.readouterr().err


def test_a_token_of_another_key_is_not_accepted_even_in_insecure_mode(
    file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    main(["gentoken", "--config", file])
    token = capsys.readouterr().out.strip()
    other = tmp_path / "other.toml"
    main(["genconfig", str(other)])
    other.write_text(other.read_text().replace("[client]\n", "[client]\ninsecure = true\n"))
    assert main(["checktoken", "--config", str(other), token]) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--ttl", "soon"], "'soon' is not a duration"),
        (["--ttl", "200000d"], "write 1s to 36500d, or 0 for ever"),
        (["--ttl", "0.5"], "write 1s to 36500d, or 0 for ever"),
        (["--info", "{"], "--info must be JSON"),
    ],
)
def test_a_wrong_argument_is_named(
    file: str, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
):
    assert main(["gentoken", "--config", file, *arguments]) == 3
    assert said in capsys.readouterr().err


def test_without_a_key_it_is_said_where_one_comes_from(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert main(["gentoken"]) == 78
    monkeypatch.setenv("WS_CLUSTER_CLIENT__INSECURE", "true")
    assert main(["gentoken"]) == 3
    assert "ws-cluster genconfig writes one" in capsys.readouterr().err


def test_a_folder_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["genconfig", str(tmp_path / "none" / "a.toml")]) == 3
    assert "cannot be written: No such file or directory" in capsys.readouterr().err
