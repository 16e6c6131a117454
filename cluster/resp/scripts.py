"""The Lua scripts of cluster/lua, one atomic script per file, addressed by their SHA-1."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources
from typing import Final


@dataclass(frozen=True, slots=True)
class Script:
    """One script.

    Attributes:
        keeps_order: two runs for one key must be done in the order in which they were sent.
    """

    name: str
    text: str
    sha: str
    keeps_order: bool = False


def _load(name: str, *, common: str = "", keeps_order: bool = False) -> Script:
    """Load a script; the text of the file `common` is put before it."""
    files = [one for one in (common, name) if one]
    folder = resources.files("cluster").joinpath("lua")
    text = "".join(folder.joinpath(f"{one}.lua").read_text("utf-8") for one in files)
    # EVALSHA takes SHA-1; nothing depends on its strength.
    sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
    return Script(name, text, sha, keeps_order)


PUBLISH: Final = _load("publish", keeps_order=True)
PUBLISH_CONDITIONAL: Final = _load("publish_conditional", keeps_order=True)
READ_STREAM: Final = _load("read_stream")
RENEW_EPOCH: Final = _load("renew_epoch")
SESSION_ATTACH: Final = _load("session_attach")
SESSION_DETACH: Final = _load("session_detach")
SESSION_RENEW: Final = _load("session_renew")
SESSION_UPDATE: Final = _load("session_update")
SESSION_SWEEP: Final = _load("session_sweep")
USER_ENTER: Final = _load("user_enter")
REVOKE: Final = _load("revoke")
ACCESS: Final = _load("access")
PRESENCE_CHANGE: Final = _load("presence_change", common="presence_common", keeps_order=True)
PRESENCE_RENEW: Final = _load("presence_renew", common="presence_common")
PRESENCE_COUNT: Final = _load("presence_count", common="presence_common")
CHECK_ACCESS: Final = _load("check_access")

SCRIPTS: Final = (
    PUBLISH,
    PUBLISH_CONDITIONAL,
    READ_STREAM,
    RENEW_EPOCH,
    SESSION_ATTACH,
    SESSION_DETACH,
    SESSION_RENEW,
    SESSION_UPDATE,
    SESSION_SWEEP,
    USER_ENTER,
    REVOKE,
    ACCESS,
    PRESENCE_CHANGE,
    PRESENCE_RENEW,
    PRESENCE_COUNT,
    CHECK_ACCESS,
)
