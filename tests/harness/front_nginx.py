"""An nginx in front of several replicas, with the product's own configuration, as in compose.

It knows the ports of all replicas that may come, as with DNS it would learn their addresses: one that does
not answer is passed over.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

from cluster.children.binaries import nginx_program
from cluster.children.nginx import NginxSettings, render, unprivileged_user
from tests.harness.cluster import Cluster
from tests.harness.processes import free_ports
from tests.harness.waiting import until_async


class FrontNginx:
    """One nginx; an async context manager that accepts clients inside the block.

    Args:
        program: its path; the product's own if it is empty.
        has_status: it serves /stub_status at `status_port`, which not every nginx can.
    """

    def __init__(
        self,
        directory: Path,
        replicas: list[Cluster],
        *,
        program: str = "",
        has_status: bool = False,
    ) -> None:
        self._directory = directory
        self._replicas = replicas
        self._process: subprocess.Popen[bytes] | None = None
        self._program = program
        self._has_status = has_status
        self.port = free_ports(2)
        self.status_port = self.port + 1

    def _configuration(self) -> str:
        workers = [
            f"127.0.0.1:{replica.worker_port(slot)}"
            for replica in self._replicas
            for slot in range(replica.workers_wanted)
        ]
        settings = NginxSettings(
            listen=f"127.0.0.1:{self.port}",
            workers=workers,
            admin=f"127.0.0.1:{self._replicas[0].admin_port}",
            ping_interval_seconds=25,
            file_limit=4096,
            user=unprivileged_user(),
            access_log="access.log",
            instance="nginx",
            status_listen=f"127.0.0.1:{self.status_port}" if self._has_status else "",
        )
        return render(settings)

    async def __aenter__(self) -> Self:
        self._directory.mkdir(parents=True)
        # Its worker processes have another user, and make temporary files here.
        self._directory.chmod(0o777)
        (self._directory / "nginx.conf").write_text(self._configuration())
        with (self._directory / "nginx.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    self._program or nginx_program(),
                    "-p",
                    str(self._directory),
                    "-c",
                    "nginx.conf",
                    "-e",
                    "stderr",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            await until_async(self._accepts, 15, f"nginx accepts on {self.port}")
        except BaseException:
            self._end()
            raise
        return self

    async def _accepts(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._directory / "nginx.log").read_text()
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            writer.close()
            return True
        return False

    def _end(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end()
