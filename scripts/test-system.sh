#!/usr/bin/env bash
# Make sure that the programs the tests start are installed: Debian's redis-server (the stores are
# tested against it beside Valkey), node and npm (the official JavaScript SDK is a test client),
# curl (the examples of the documentation use it), Prometheus, Alertmanager and node_exporter (the
# alert rules are tested with the real ones), jq (the seed's commands use it), Chromium (the console is
# tested in it), libfaketime (a test steps the clocks), iproute2 (tests cut the network). With the argument `engine`, instead, what
# tests/compose/stand_in needs: Docker's engine, mmdebstrap, iptables.
# Installs them through apt as root or with a sudo that needs no password; otherwise lists what is
# missing. A newly installed service is neither started nor left enabled.
set -euo pipefail
export PATH="$PATH:/usr/sbin:/sbin"
# One at a time: the end of one would remove the policy under which another installs.
exec 9<"${BASH_SOURCE[0]}"
if command -v flock >/dev/null; then flock 9; fi

missing_for_the_engine() {
    command -v dockerd >/dev/null && command -v docker >/dev/null || echo docker.io
    command -v mmdebstrap >/dev/null || echo mmdebstrap
    command -v ip >/dev/null || echo iproute2
    command -v iptables >/dev/null || echo iptables
}

missing_for_the_tests() {
    command -v redis-server >/dev/null || echo redis-server
    local major
    major=$(node --version 2>/dev/null | sed -E 's/^v([0-9]+).*/\1/' || true)
    [ "${major:-0}" -ge 18 ] || echo nodejs
    command -v npm >/dev/null || echo npm
    command -v curl >/dev/null || echo curl
    command -v promtool >/dev/null || echo prometheus
    command -v amtool >/dev/null || echo prometheus-alertmanager
    command -v prometheus-node-exporter >/dev/null || echo prometheus-node-exporter
    command -v jq >/dev/null || echo jq
    command -v ip >/dev/null && command -v tc >/dev/null || echo iproute2
    command -v chromium >/dev/null || echo chromium
    compgen -G "/usr/lib/*/faketime/libfaketimeMT.so.1" >/dev/null || echo libfaketime
}

missing_packages() {
    case "${1:-}" in
        engine) missing_for_the_engine ;;
        *) missing_for_the_tests ;;
    esac
}

explain() {
    echo "The tests need programs that are missing: $1" >&2
    echo "Install them (Debian: apt-get install $1; node must be 18 or newer) and try again." >&2
    exit 69
}

policy=/usr/sbin/policy-rc.d
we_wrote_policy=
restore_policy() { if [ -n "$we_wrote_policy" ]; then "${root[@]}" rm -f "$policy"; fi; }

install_packages() { # through apt, without starting services
    if [ ! -e "$policy" ]; then
        # invoke-rc.d asks this program; 101 means "do not start it".
        printf '#!/bin/sh\nexit 101\n' | "${root[@]}" tee "$policy" >/dev/null
        "${root[@]}" chmod 755 "$policy"
        we_wrote_policy=yes
    fi
    local -a apt=("${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=120)
    if ! "${apt[@]}" install --yes --no-install-recommends "$@" </dev/null >/dev/null 2>&1; then
        "${apt[@]}" update </dev/null
        "${apt[@]}" install --yes --no-install-recommends "$@" </dev/null >/dev/null
    fi
    local service
    for service in redis-server prometheus prometheus-alertmanager prometheus-node-exporter docker.io; do
        case " $* " in *" $service "*)
            if command -v systemctl >/dev/null; then
                local -a units=("$service")
                [ "$service" != docker.io ] || units=(docker.service docker.socket containerd.service)
                "${root[@]}" systemctl disable --quiet "${units[@]}" </dev/null >/dev/null 2>&1 || true
            fi ;;
        esac
    done
}

packages=$(missing_packages "${1:-}" | tr '\n' ' ')
packages=${packages% }
[ -n "$packages" ] || exit 0

root=()
if [ "$(id -u)" -ne 0 ]; then
    sudo -n true >/dev/null 2>&1 || explain "$packages"
    root=(sudo -n)
fi
command -v apt-get >/dev/null || explain "$packages"

echo "Installing the Debian packages the tests need: $packages"
trap restore_policy EXIT
read -ra names <<<"$packages"
install_packages "${names[@]}" || explain "$packages"
still=$(missing_packages "${1:-}" | tr '\n' ' ')
[ -z "$still" ] || explain "${still% }"
