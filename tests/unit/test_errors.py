"""The catalogue: codes are unique, texts are as the SDKs need them, classes are in their tree."""

from __future__ import annotations

import json

import pytest

from cluster import errors
from cluster.errors import (
    CLIENT_ERRORS,
    DISCONNECTS,
    UNSUBSCRIBES,
    BootFailed,
    ClientError,
    ClusterError,
    ConfigError,
    DependencyMissing,
    Disconnect,
    Problem,
    StoreError,
    StoreRefused,
    StoreUnavailable,
)

#: Temporary errors make the SDKs try again; all others end the subscription.
TEMPORARY = {100, 111}


def test_every_client_error_has_its_own_code_and_a_text():
    assert len({error.code for error in CLIENT_ERRORS}) == len(CLIENT_ERRORS)
    assert all(error.message for error in CLIENT_ERRORS)


def test_only_errors_of_a_passing_state_are_temporary():
    assert {error.code for error in CLIENT_ERRORS if error.temporary} == TEMPORARY


def test_every_close_has_its_own_code():
    assert len({close.code for close in DISCONNECTS}) == len(DISCONNECTS)


@pytest.mark.parametrize("close", DISCONNECTS, ids=str)
def test_a_close_reason_is_text_that_fits_a_control_frame_and_is_no_json(close: Disconnect):
    assert 0 < len(close.reason.encode()) <= 123
    with pytest.raises(json.JSONDecodeError):
        json.loads(close.reason)


def test_codes_that_stop_an_sdk_are_faults_of_the_client():
    # 3503 is what a backend decides.
    terminal = {close.code for close in DISCONNECTS if 3500 <= close.code < 4000} - {3503}
    faults = {close.code for close in DISCONNECTS if close.is_client_fault}
    assert terminal <= faults


def test_faults_and_decisions_of_the_server_are_not_counted_as_the_clients():
    ours = {1000, 3000, 3001, 3004, 3005, 3008, 3009, 3010, 3011}
    assert not ours & {close.code for close in DISCONNECTS if close.is_client_fault}


def test_the_catalogue_lists_everything_it_defines():
    defined = [one for one in vars(errors).values() if isinstance(one, ClientError)]
    closes = [one for one in vars(errors).values() if isinstance(one, Disconnect)]
    assert set(defined) == set(CLIENT_ERRORS)
    assert set(closes) == set(DISCONNECTS)


def test_an_unsubscribe_of_2500_and_above_makes_the_sdk_resubscribe():
    assert [one.code for one in UNSUBSCRIBES] == [2000, 2500, 2501]
    assert all(one.reason for one in UNSUBSCRIBES)


@pytest.mark.parametrize(
    ("kind", "code"), [(ConfigError, 78), (DependencyMissing, 69), (BootFailed, 3)]
)
def test_an_error_that_ends_a_program_has_its_exit_code(kind: type[ClusterError], code: int):
    assert kind.exit_code == code  # type: ignore[attr-defined]
    assert issubclass(kind, ClusterError)


def test_a_bad_configuration_reports_every_mistake():
    one = Problem("server.port", "99999", "a port is a number up to 65535")
    two = Problem("client.insecure", "maybe", "true or false")
    text = str(ConfigError([one, two]))
    assert text.splitlines() == [
        "server.port: 99999 is not allowed; a port is a number up to 65535",
        "client.insecure: maybe is not allowed; true or false",
    ]


def test_both_errors_of_a_store_are_store_errors():
    assert issubclass(StoreUnavailable, StoreError)
    assert issubclass(StoreRefused, StoreError)
    assert not issubclass(StoreUnavailable, StoreRefused)


@pytest.mark.parametrize(
    ("answer", "is_temporary"),
    [
        ("CLUSTERDOWN The cluster is down", True),
        ("LOADING Valkey is loading the dataset in memory", True),
        ("MOVED 3999 127.0.0.1:6381", True),
        ("READONLY You can't write against a read only replica.", True),
        (
            "READONLY You can't write against a read only replica. script: 1f, on @user_script:2.",
            True,
        ),
        ("ERR Error running script (call to f_1f): @user_script:2: -READONLY You can't", True),
        ("ERR Error running script (call to f_1f): @user_script:2: WRONGTYPE Operation", False),
        ("MISCONF Valkey is configured to save RDB snapshots", False),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", False),
        ("NOPERM this user has no permissions", False),
        ("ERR unknown command", False),
        ("", False),
    ],
)
def test_a_refusal_is_temporary_if_a_later_attempt_may_succeed(answer: str, is_temporary: bool):
    assert StoreRefused(answer).is_temporary is is_temporary
