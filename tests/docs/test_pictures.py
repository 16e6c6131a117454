"""The pictures that are drawn by code are those that the code draws now."""

from __future__ import annotations

import pytest

from scripts.draw_pictures import FOLDER, PICTURES


@pytest.mark.parametrize("name", sorted(PICTURES))
def test_a_picture_is_what_the_program_draws(name: str):
    assert (FOLDER / name).read_text(encoding="utf-8") == PICTURES[name], (
        "run scripts/draw_pictures.py"
    )


def test_the_architecture_shows_unix_sockets_between_nginx_and_the_workers():
    assert ">unix sockets<" in PICTURES["architecture.svg"]
