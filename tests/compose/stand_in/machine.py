"""What the stand-in engine takes from this machine: programs, the mirror of Debian, certificates, pip's settings.

All of it goes into images that stay on this machine; nothing of it is printed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from tests.harness.cluster import REPOSITORY

#: The package of Debian that has each program.
PROGRAMS: Final = {
    "dockerd": "docker.io",
    "docker": "docker.io",
    "mmdebstrap": "mmdebstrap",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
    "ip": "iproute2",
    "iptables": "iptables",
}
#: Where Debian has all certificates in one file, which is where the image has them, too.
CERTIFICATES: Final = "/etc/ssl/certs/ca-certificates.crt"
_INSTALL: Final = REPOSITORY / "scripts" / "test-system.sh"
_PROXIES: Final = ("http_proxy", "https_proxy", "no_proxy")
_SETTING: Final = re.compile(r"^(?::env:|[a-z]+)\.([a-z-]+)='(.*)'$", re.MULTILINE)
#: What of pip's settings says how a registry is reached.
_ABOUT_REGISTRIES: Final = {
    "index-url",
    "extra-index-url",
    "trusted-host",
    "proxy",
    "timeout",
    "default-timeout",
    "retries",
}


#: What an engine of its own does first; each line is a right that a container may not have.
_RIGHTS: Final = (
    "ip link set lo up",
    "ip link add name probe0 type bridge",
    "iptables --table nat --list-rules >/dev/null",
    "mkdir lower work merged",
    "mount -t tmpfs none work",
    "mkdir work/upper work/work",
    "mount -t overlay -o lowerdir=lower,upperdir=work/upper,workdir=work/work overlay merged",
)


class Unavailable(Exception):
    """The stand-in engine cannot be had here; the text is one sentence that says what to do."""


class NotPermitted(Unavailable):
    """This user, or this kernel, does not let anybody have one."""


def extend_path() -> None:
    """Find programs of the administrator, as a shell of root does."""
    os.environ["PATH"] += ":/usr/local/sbin:/usr/sbin:/sbin"


def check_user() -> None:
    """Raises NotPermitted for any user but root."""
    if os.geteuid() != 0:
        raise NotPermitted(
            "an engine of its own makes namespaces, bridges and mounts: run this as root"
        )


def install_programs() -> None:
    """Install the packages that are missing; raises Unavailable if that does not work."""
    if not _lacking():
        return
    with suppress(OSError):
        subprocess.run([_INSTALL, "engine"], stdout=sys.stderr, check=False, timeout=900)
    if lacking := _lacking():
        packages = " ".join(sorted({PROGRAMS[program] for program in lacking}))
        raise Unavailable(f"{', '.join(lacking)} missing: install Debian's packages {packages}")


def _lacking() -> list[str]:
    return [program for program in PROGRAMS if shutil.which(program) is None]


def check_rights() -> None:
    """Raises NotPermitted if the namespaces, bridges, rules and mounts of an engine cannot be made."""
    command = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child=KILL"]
    with tempfile.TemporaryDirectory(prefix="ws-rights-") as folder:
        done = subprocess.run(
            [*command, "sh", "-ec", "\n".join(_RIGHTS)],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["no reason"]
        raise NotPermitted(
            f"this kernel does not let root make what an engine needs ({said[-1]}):"
            " run this on a machine, or in a container with all rights"
        )


def debian_mirror() -> str | None:
    """The address this machine has Debian's packages from; None if it names none."""
    if shutil.which("apt-get") is None:
        return None
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    found = [line for line in done.stdout.split() if line.rstrip("/").endswith("/debian")]
    return found[0] if found else None


def certificates(environment: Mapping[str, str]) -> bytes:
    """The certificates this machine trusts, in PEM.

    Raises:
        Unavailable: there is no such file.
    """
    path = Path(environment.get("SSL_CERT_FILE", CERTIFICATES))
    try:
        return path.read_bytes()
    except OSError as error:
        raise Unavailable(
            f"{path} cannot be read ({error.strerror}): install Debian's package ca-certificates"
        ) from None


def pip_settings() -> str:
    """A pip.conf with which pip in a container reaches the registry this machine's pip reaches."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return pip_configuration(done.stdout)


def pip_configuration(listing: str) -> str:
    """What `pip config list` prints, as a file; paths of this machine are left out."""
    settings = {"cert": CERTIFICATES}
    for name, value in _SETTING.findall(listing):
        if name in _ABOUT_REGISTRIES:
            settings[name] = value.replace("\\n", "\n  ")
    return "[global]\n" + "".join(f"{name} = {value}\n" for name, value in settings.items())


def proxy_names(environment: Mapping[str, str]) -> list[str]:
    """The variables that name a proxy, for a build."""
    names = [spelt for name in _PROXIES for spelt in (name, name.upper())]
    return [name for name in names if environment.get(name)]
