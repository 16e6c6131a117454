"""docker/env-file.sh: docker/.env means to the scripts what it means to Compose."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.architecture.tree import ROOT

DOCKER = ROOT / "docker"


def env_file(folder: Path, text: str, names: str, **variables: str) -> list[str]:
    """What docker/env-file.sh makes of a file, or its complaint."""
    (folder / ".env").write_text(text)
    program = (
        f'. "{DOCKER}/env-file.sh"\nread_env_file "{folder}/.env" || {{ echo "$env_file_problem"; exit; }}\n'
        f"for name in {names}; do printenv $name || echo; done"
    )
    done = subprocess.run(
        ["bash", "-c", program],
        env={"PATH": os.environ["PATH"], **variables},
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert done.stderr == ""
    return done.stdout.replace(f"{folder}/", "").splitlines()


@pytest.mark.parametrize(
    ("line", "value"),
    # As `docker compose config` (2.40.3) has them.
    [
        ("A=a value with spaces", "a value with spaces"),
        ("A=plain  # a comment", "plain"),
        ("A=plain  # a comment for $5", "plain"),
        ("A=http://x/#fragment", "http://x/#fragment"),
        ('A=["https://a.example", "b"]', '["https://a.example", "b"]'),
        ("""A='[{"name":"load","x":"$HOME # text"}]' # a comment""", '[{"name":"load","x":"$HOME # text"}]'),
        (r'A="say \"hi\" # text"', 'say "hi" # text'),
        (r"A='it\'s'", "it's"),
        (r'A="tab\tback\\slash"', "tab\tback\\slash"),
        (r'A="\\x41 \0101"', r"\x41 A"),
        # What printf of Bash expands, and Compose does not; after \c it prints nothing more.
        (r'A="a\cb"', r"a\cb"),
        (r'A="\x41\u0041\U00000041\101"', r"\x41\u0041\U00000041\101"),
        (r"""A="it\'s\e\E\?\q" """, r"it\'s\e\E\?\q"),
        ('A=a"b"c', 'a"b"c'),
        ("  export A = d  ", "d"),
        ("A=d\r", "d"),
        ("A=", ""),
        ("# A=b", ""),
    ],
)  # fmt: skip
def test_a_variable_of_the_file_is_what_compose_makes_of_it(line: str, value: str, tmp_path: Path):
    assert env_file(tmp_path, f"{line}\nB=last", "A B") == [value, "last"]


def test_a_variable_of_the_environment_comes_first_and_nothing_in_the_file_is_run(tmp_path: Path):
    text = f"A=file\nB=`touch {tmp_path}/made`; touch {tmp_path}/made\n"
    assert env_file(tmp_path, text, "A", A="own") == ["own"]
    assert not (tmp_path / "made").exists()


NOT_CLOSED = "the quote of A is not closed there; write the value on one line, as the scripts read none of several"


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("HTTP_PORT 80", "line 2 of .env is no NAME=VALUE"),
        ("A='b", f"line 2 of .env: {NOT_CLOSED}"),
        ('A="b', f"line 2 of .env: {NOT_CLOSED}"),
        # Compose takes it.
        ("A='b\nc'", f"line 2 of .env: {NOT_CLOSED}"),
        (
            "A=https://$HOST",
            "line 2 of .env: put the value of A into single quotes, as it has a $",
        ),
    ],
)
def test_a_line_that_is_not_understood_is_named(line: str, sentence: str, tmp_path: Path):
    assert env_file(tmp_path, f"B=c\n{line}\n", "B") == [sentence]


def test_a_file_that_cannot_be_read_is_said(tmp_path: Path):
    (tmp_path / ".env").mkdir()
    program = f'set -u; . "{DOCKER}/env-file.sh"\nread_env_file "{tmp_path}/.env" || echo "$env_file_problem"'
    said = subprocess.check_output(["bash", "-c", program], text=True, timeout=30)
    assert said.startswith(f"{tmp_path}/.env cannot be read by ")
