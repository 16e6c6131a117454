"""genconfig, gentoken and checktoken: what they write is what the cluster accepts."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path

import jwt
import pytest

from cluster import config
from cluster.cli import main
from tests.unit.local_worker import LocalWorker, ask, entered
from tests.unit.token_making import jwk, jwks, private_key, private_pem


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


async def test_with_what_was_generated_a_user_subscribes_publishes_and_reads(
    file: str, capsys: pytest.CaptureFixture[str]
):
    assert main(["gentoken", "--config", file, "--user", "42"]) == 0
    token = capsys.readouterr().out.strip()
    async with LocalWorker(config.load(file, env={})).open() as worker:
        caller = await entered(worker, token=token)
        refused = await ask(caller, "publish", channel="chat:1", data="from outside")
        assert refused["error"]["code"] == 103
        assert "error" not in await ask(caller, "subscribe", channel="chat:1", recoverable=True)
        assert "publish" in await ask(caller, "publish", channel="chat:1", data={"text": "hello"})
        await caller.until(lambda: caller.pubs() == [{"text": "hello"}])
        history = (await ask(caller, "history", channel="chat:1", limit=10))["history"]
        assert [one["data"] for one in history["publications"]] == [{"text": "hello"}]
        present = (await ask(caller, "presence", channel="chat:1"))["presence"]["presence"]
        assert [one["user"] for one in present.values()] == ["42"]


def test_a_token_is_checked(file: str, capsys: pytest.CaptureFixture[str]):
    main(["gentoken", "--config", file, "--user", "42", "--ttl", "0"])
    token = capsys.readouterr().out.strip()
    assert main(["checktoken", "--config", file, token]) == 0
    assert capsys.readouterr().out == 'user "42", valid for ever\n'
    assert main(["checktoken", "--config", file, token[:-2]]) == 1
    assert "the token is not accepted: it is no JSON Web Token" in capsys.readouterr().err
    changed = f"{token[:-6]}AAAA{token[-2:]}"
    assert main(["checktoken", "--config", file, changed]) == 1
    assert "the token is not accepted: it is not signed with" in capsys.readouterr().err


def test_nothing_is_no_token_also_where_clients_need_none(
    file: str, capsys: pytest.CaptureFixture[str]
):
    text = Path(file).read_text()
    option = "[client]\nallow_anonymous_connect_without_token = true\n"
    Path(file).write_text(text.replace("[client]\n", option))
    assert main(["check-config", file]) == 0
    assert config.load(file, env={}).client.allow_anonymous_connect_without_token
    assert main(["checktoken", "--config", file, ""]) == 1
    assert "anonymous" not in capsys.readouterr().out


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
        (["--meta", "{"], "--meta must be JSON"),
        (["--algorithm", "ES256"], "the key is not fit for ES256; it signs HS256, HS384, HS512"),
        (["--private-key", "none.pem"], "none.pem cannot be read: No such file"),
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


# --- subscription tokens, algorithms and claims --------------------------------------------------


async def test_a_client_subscribes_with_a_generated_subscription_token(
    file: str, capsys: pytest.CaptureFixture[str]
):
    main(["gentoken", "--config", file, "--user", "42"])
    token = capsys.readouterr().out.strip()
    command = ["gensubtoken", "--config", file, "--user", "42", "--channel", "$a", "--ttl", "1h"]
    assert main([*command, "--info", '{"n": 1.10}', "--data", "[1]"]) == 0
    sub_token, said = capsys.readouterr()
    assert said.startswith('a subscription token for user "42" and channel "$a", valid until ')
    check = ["checksubtoken", "--config", file, sub_token.strip()]
    assert await asyncio.to_thread(main, check) == 0
    assert capsys.readouterr().out.startswith('user "42", channel "$a", valid until ')
    async with LocalWorker(config.load(file, env={})).open() as worker:
        caller = await entered(worker, token=token)
        answer = await ask(caller, "subscribe", channel="$a", token=sub_token.strip())
        assert answer["subscribe"]["data"] == [1]
        [client] = worker.server.clients
        assert client.connection.channels["$a"].info == b'{"n": 1.10}'


def test_the_two_kinds_of_token_are_told_apart(file: str, capsys: pytest.CaptureFixture[str]):
    main(["gentoken", "--config", file])
    main(["gensubtoken", "--config", file, "--channel", "a"])
    token, sub_token = capsys.readouterr().out.split()
    assert main(["checksubtoken", "--config", file, token]) == 1
    assert "it is a connection token" in capsys.readouterr().err
    assert main(["checktoken", "--config", file, sub_token]) == 1
    assert "it is a subscription token" in capsys.readouterr().err


def test_claims_and_the_algorithm_are_chosen(file: str, capsys: pytest.CaptureFixture[str]):
    command = ["gentoken", "--config", file, "--user", "42", "--id", "j", "--channel", "a"]
    more = ["--channel", "b", "--meta", '{"plan":1}', "--algorithm", "HS512"]
    assert main([*command, *more]) == 0
    token = capsys.readouterr().out.strip()
    assert jwt.get_unverified_header(token)["alg"] == "HS512"
    claims = jwt.decode(token, options={"verify_signature": False})
    assert {name: claims[name] for name in ("jti", "channels", "meta")} == {
        "jti": "j", "channels": ["a", "b"], "meta": {"plan": 1},
    }  # fmt: skip


@pytest.mark.parametrize("algorithm", ["RS256", "PS384", "ES256", "EdDSA"])
def test_a_private_key_signs_what_its_public_key_in_a_set_verifies(
    algorithm: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    key = private_key(algorithm)
    (tmp_path / "key.pem").write_bytes(private_pem(key))
    (tmp_path / "keys.json").write_bytes(jwks(jwk(key, "k1")))
    file = tmp_path / "ws-cluster.toml"
    file.write_text(f"[client.token]\njwks_file = '{tmp_path}/keys.json'\naudience = 'us'\n")
    command = ["gentoken", "--config", str(file), "--private-key", str(tmp_path / "key.pem")]
    assert main([*command, "--key-id", "k1", "--algorithm", algorithm, "--user", "42"]) == 0
    token = capsys.readouterr().out.strip()
    assert main(["checktoken", "--config", str(file), token]) == 0
    assert capsys.readouterr().out.startswith('user "42", valid until ')
    assert main(["gentoken", "--config", str(file)]) == 3
    assert "give the private key with --private-key FILE" in capsys.readouterr().err


@pytest.mark.parametrize("enabled", [True, False])
def test_subscription_tokens_are_signed_with_their_own_key_if_they_have_one(
    file: str, enabled: bool, capsys: pytest.CaptureFixture[str]
):
    section = f"[client.subscription_token]\nenabled = {str(enabled).lower()}\n"
    with Path(file).open("a") as text:
        text.write(section + f'hmac_secret_key = "{"o" * 64}"\n')
    assert main(["gensubtoken", "--config", file, "--channel", "a"]) == 0
    token = capsys.readouterr().out.strip()
    assert main(["checksubtoken", "--config", file, token]) == 0
    key = "o" * 64 if enabled else config.load(file, env={}).client.token.hmac_secret_key
    assert jwt.decode(token, key, algorithms=["HS256"])["channel"] == "a"
