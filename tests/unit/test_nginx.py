"""The nginx template, and what must never appear in its logs."""

from __future__ import annotations

import dataclasses
import json
import re
import socket
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import suppress

import pytest

from cluster.children.binaries import nginx_program
from cluster.children.nginx import (
    NginxSettings,
    NginxSpec,
    render,
    template_path,
    unprivileged_user,
)
from tests.integration.running import free_ports

SETTINGS = NginxSettings(
    listen="127.0.0.1:8000",
    workers=["127.0.0.1:8101", "127.0.0.1:8102"],
    admin="127.0.0.1:8001",
    ping_interval_seconds=25,
    file_limit=20000,
    processes=2,
)


def test_every_worker_is_an_upstream_that_is_never_marked_as_failed():
    text = render(SETTINGS)
    assert re.findall(r"server (127\.0\.0\.1:81\d\d) max_fails=0;", text) == SETTINGS.workers
    assert "least_conn;" in text


def test_a_worker_may_be_reached_over_a_unix_socket_of_any_path():
    settings = dataclasses.replace(SETTINGS, workers=["unix:/a b/w0", 'unix:/c"$d:{e}/w1'])
    text = render(settings)
    assert '        server "unix:/a b/w0" max_fails=0;\n' in text
    assert '        server "unix:/c\\"$d:{e}/w1" max_fails=0;\n' in text


def test_the_rules_for_the_next_upstream_and_the_timeouts_are_those_of_the_design():
    text = render(SETTINGS)
    assert "proxy_next_upstream error timeout http_503;" in text
    assert "proxy_connect_timeout 1s;" in text
    assert "proxy_read_timeout 75000ms;" in text
    assert "proxy_buffering off;" in text


def test_the_access_log_contains_no_query_string():
    assert "$request_uri" not in render(SETTINGS)
    assert not re.search(r"\$(args|query_string|request)\b", render(SETTINGS))


def test_every_placeholder_of_the_template_is_replaced():
    assert "%{" in template_path().read_text()
    assert "%{" not in render(SETTINGS)


def test_metrics_are_for_loopback_and_private_addresses_only():
    block = re.search(r"location = /metrics \{(.*?)\}", render(SETTINGS), re.DOTALL)
    assert block
    allowed = re.findall(r"allow (\S+);", block[1])
    assert {"127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"} <= set(allowed)
    assert "deny all;" in block[1]


@pytest.mark.parametrize(
    ("file_limit", "connections", "capacity"),
    [(20000, 19936, 19936), (1 << 20, 65536, 65536), (100, 64, 64)],
)
def test_connections_follow_the_file_limit(file_limit, connections, capacity):
    settings = NginxSettings("a:1", ["a:2"], "a:3", 25, file_limit, processes=2)
    assert settings.connections_per_process == connections
    assert settings.capacity == capacity


def test_the_client_s_address_comes_from_trusted_proxies_only():
    text = render(dataclasses.replace(SETTINGS, trusted_proxies=["127.0.0.0/8", "10.0.0.0/24"]))
    assert re.findall(r"set_real_ip_from (\S+);", text) == ["127.0.0.0/8", "10.0.0.0/24"]
    assert "real_ip_header X-Forwarded-For;" in text
    assert "real_ip_recursive on;" in text


def test_nginx_takes_only_a_part_of_the_admin_port_s_places():
    text = render(dataclasses.replace(SETTINGS, admin_connections=59))
    assert "server 127.0.0.1:8001 max_fails=0 max_conns=59;" in text


def test_the_limits_per_address_are_there_only_if_they_are_on():
    assert "zone=addresses" not in render(SETTINGS)
    assert "limit_req zone" not in render(SETTINGS)
    text = render(
        dataclasses.replace(SETTINGS, connections_per_address=5, connection_rate_per_address=7)
    )
    assert "limit_conn addresses 5;" in text
    assert "zone=attempts:10m rate=7r/s;" in text
    assert "limit_req zone=attempts burst=6 nodelay;" in text
    assert "limit_conn_status 429;" in text


def test_each_process_serves_as_many_clients_as_have_two_descriptors():
    text = render(SETTINGS)
    assert "limit_conn processes 9968;" in text
    assert "limit_conn_status 503;" in text
    assert "error_page 500 502 503 504 = @unavailable;" in text


def test_a_container_needs_no_probe_and_logs_to_its_own_output():
    text = render(SETTINGS)
    assert "unix:" not in text
    assert "unix:" in render(dataclasses.replace(SETTINGS, probe_socket="/run/probe.sock"))
    assert 'access_log "/dev/stdout" json' in text


def test_nginx_itself_accepts_the_configuration(tmp_path):
    settings = NginxSettings(
        listen=f"127.0.0.1:{free_ports(1)[0]}",
        workers=["127.0.0.1:8101", "unix:/run/a b$c:{d}/w1"],
        admin="[::1]:8001",
        ping_interval_seconds=0.1,
        file_limit=20000,
        user=unprivileged_user(),
        access_log=str(tmp_path / "access.log"),
        probe_socket=str(tmp_path / "probe.sock"),
        trusted_proxies=["127.0.0.0/8", "::1/128", "10.0.0.7/32"],
    )
    conf = tmp_path / "nginx.conf"
    conf.write_text(render(settings))
    done = subprocess.run(
        [nginx_program(), "-t", "-p", f"{tmp_path}/", "-c", str(conf), "-e", "stderr"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_everything_after_a_question_mark_is_removed_from_nginx_s_output(tmp_path):
    spec = NginxSpec("nginx", run_dir=tmp_path, listen_fd=0, lock_fd=0, settings=lambda: SETTINGS)
    line = 'request: "GET /connection/websocket?session=5ec2e7&x=1 HTTP/1.1", host: "a"'
    assert spec.loggable(line) == 'request: "GET /connection/websocket?… HTTP/1.1", host: "a"'


def test_quotes_and_backslashes_in_a_path_are_escaped():
    text = render(dataclasses.replace(SETTINGS, access_log='/a"b\\n/x', probe_socket='/c"d/s'))
    assert 'access_log "/a\\"b\\\\n/x" json' in text
    assert 'listen "unix:/c\\"d/s";' in text


def test_every_line_of_the_access_log_names_an_instance(tmp_path):
    """Without a name of its own that is the host's, which in a container is the container's id."""
    for instance, expected in ((SETTINGS.instance, socket.gethostname()), ("nginx", "nginx")):
        folder = tmp_path / expected
        folder.mkdir(mode=0o777)
        folder.chmod(0o777)
        settings = dataclasses.replace(
            SETTINGS, listen=f"127.0.0.1:{free_ports(1)[0]}", processes=1, file_limit=1024,
            user=unprivileged_user(), access_log=str(folder / "access.log"), instance=instance,
        )  # fmt: skip
        conf = folder / "nginx.conf"
        conf.write_text(render(settings))
        words = [nginx_program(), "-p", f"{folder}/", "-c", str(conf), "-e", "stderr"]
        process = subprocess.Popen(words)
        try:
            address = f"http://{settings.listen}/nowhere"
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline:
                try:
                    urllib.request.urlopen(address, timeout=5)
                except urllib.error.HTTPError:
                    # No worker runs.
                    break
                except OSError:
                    time.sleep(0.05)
        finally:
            process.terminate()
            process.wait(20)
        [line, *_] = (folder / "access.log").read_text().splitlines()
        assert json.loads(line)["instance"] == expected


def test_a_request_to_an_application_that_hangs_is_not_sent_to_the_next_worker_too(tmp_path):
    """It would hang there as well, and take a place in each worker."""
    tmp_path.chmod(0o777)
    silent = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    settings = dataclasses.replace(
        SETTINGS, listen=f"127.0.0.1:{free_ports(1)[0]}", processes=1, file_limit=1024, user=unprivileged_user(),
        workers=[f"127.0.0.1:{one.getsockname()[1]}" for one in silent],
    )  # fmt: skip
    # The same relation in shorter times.
    text = render(settings).replace("proxy_read_timeout 60s;", "proxy_read_timeout 2s;")
    text = text.replace("proxy_next_upstream_timeout 10s;", "proxy_next_upstream_timeout 1s;")
    assert "proxy_read_timeout 2s;" in text
    conf = tmp_path / "nginx.conf"
    conf.write_text(text)
    process = subprocess.Popen(
        [nginx_program(), "-p", f"{tmp_path}/", "-c", str(conf), "-e", "stderr"]
    )
    try:
        address = f"http://{settings.listen}/app/"
        deadline, status = time.monotonic() + 30, 0
        while not status and time.monotonic() < deadline:
            try:
                urllib.request.urlopen(address, timeout=20)
            except urllib.error.HTTPError as error:
                status = error.code
            except OSError:
                time.sleep(0.05)
        asked = 0
        for one in silent:
            one.setblocking(False)
            with suppress(BlockingIOError):
                one.accept()[0].close()
                asked += 1
    finally:
        process.terminate()
        process.wait(30)
        for one in silent:
            one.close()
    assert (status, asked) == (504, 1)
