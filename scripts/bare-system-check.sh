#!/usr/bin/env bash
# Do the README's two commands work on a Debian that has only git, make and Python?
#
#   scripts/bare-system-check.sh [run|test|all] [--working-tree] [--suite bookworm] [--keep]
#
# Makes a minimal Debian in a folder of its own (debootstrap, as root), clones the last commit into
# it (with --working-tree: copies the files as they are), and, as a user without privileges, starts
# `make run`, waits until /ready says so, sends what Ctrl-C sends, and looks for processes and files
# that were left. `test` runs `make test` as root, so that apt may be used. RUN_ARGS are handed to
# ws-cluster (other ports on a machine where 8000 is taken), MIRROR to debootstrap.
# Mounts and processes are in namespaces of their own and end with this script.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

what=all suite=bookworm working_tree='' keep=''
while [ $# -gt 0 ]; do
    case $1 in
        run | test | all) what=$1 ;;
        --working-tree) working_tree=yes ;;
        --keep) keep=yes ;;
        --suite) suite=$2 && shift ;;
        *) sed -n '2,12s/^# \{0,1\}//p' "$0" >&2 && exit 64 ;;
    esac
    shift
done
[ "$(id -u)" -eq 0 ] || { echo "This check makes a system of its own: run it as root." >&2; exit 77; }
command -v debootstrap >/dev/null || { echo "debootstrap is missing: apt-get install debootstrap" >&2; exit 69; }

root=${BARE_ROOT:-${TMPDIR:-/tmp}/ws-cluster-bare-$suite}
cleanup() { if [ -z "$keep" ]; then rm -rf --one-file-system "$root"; fi; }
trap cleanup EXIT

own_mirror() { # the first Debian mirror of this machine
    sed -nE 's/^(URIs:|deb( \[[^]]*\])?) +([^ ]+\/debian\/?)( .*)?$/\3/p' \
        /etc/apt/sources.list /etc/apt/sources.list.d/*.sources 2>/dev/null | head -n 1
}

if [ ! -e "$root/.made" ]; then
    echo "== a minimal $suite in $root"
    timeout 900 debootstrap --variant=minbase \
        --include=git,make,python3,python3-venv,ca-certificates \
        "$suite" "$root" ${MIRROR:-$(own_mirror)} >"$root.log" 2>&1 ||
        { tail -n 20 "$root.log" >&2; exit 1; }
    rm -f "$root.log"
    chroot "$root" useradd --create-home --home-dir /srv/dev --shell /bin/bash dev
    touch "$root/.made"
fi

# How this machine reaches its package indexes: names, certificates, pip's configuration.
cp /etc/resolv.conf /etc/hosts "$root/etc/"
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
if [ -e /etc/pip.conf ]; then cp /etc/pip.conf "$root/etc/"; fi
env | grep -iE '^(PIP_(CERT|INDEX_URL|EXTRA_INDEX_URL|DEFAULT_TIMEOUT|TRUSTED_HOST)|[a-z]+_proxy|SSL_CERT_FILE|NODE_EXTRA_CA_CERTS)=' \
    >"$root/root/environment" || true
registry=$(npm config get registry 2>/dev/null || true)
if [ -n "$registry" ]; then echo "NPM_CONFIG_REGISTRY=$registry" >>"$root/root/environment"; fi

checkout=$root/srv/dev/ws-cluster
rm -rf "$checkout"
if [ -n "$working_tree" ]; then
    mkdir -p "$checkout"
    git ls-files -z --cached --others --exclude-standard | xargs -0 tar -c --ignore-failed-read -f - -- | tar -x -C "$checkout"
    git -C "$checkout" init --quiet
    git -C "$checkout" add --all
else
    git clone --quiet --no-hardlinks . "$checkout"
fi
chroot "$root" chown -R dev:dev /srv/dev

cat >"$root/root/check" <<'INSIDE'
set -euo pipefail
set -m # each job its own process group, which is what Ctrl-C reaches
what=$1
run_args=$2
set -a
. /root/environment
set +a
as_dev() { setpriv --reuid dev --regid dev --init-groups env HOME=/srv/dev USER=dev PYTHONUNBUFFERED=1 "$@"; }
cd /srv/dev/ws-cluster

others() { # processes beside this script and its pipes
    for folder in /proc/[0-9]*; do
        pid=${folder#/proc/}
        [ "$pid" -eq 1 ] || [ "$pid" -eq $$ ] || [ "$pid" -eq "$BASHPID" ] ||
            tr '\0' ' ' <"$folder/cmdline" 2>/dev/null | grep -E 'python|nginx|valkey|redis|make' || true
    done
}

check_run() {
    python3 --version
    local started=$SECONDS
    as_dev make run ARGS="$run_args" </dev/null >/root/run.log 2>&1 &
    local job=$!
    local port
    port=$(sed -nE 's/.*--admin-port[= ]([0-9]+).*/\1/p' <<<"$run_args")
    local ready="import urllib.request as r; r.urlopen('http://127.0.0.1:${port:-8001}/ready', timeout=2)"
    until python3 -c "$ready" 2>/dev/null; do
        if ! kill -0 $job 2>/dev/null || [ $((SECONDS - started)) -gt 420 ]; then
            cat /root/run.log
            echo "FAILED: make run did not become ready"
            exit 1
        fi
        sleep 0.5
    done
    echo "ready after $((SECONDS - started)) s, packages installed from nothing"
    kill -INT -- -$job
    local code=0
    wait $job || code=$?
    cat /root/run.log
    echo "make run ended with $code after Ctrl-C"
    local left
    left=$(others)
    [ -z "$left" ] || { echo "FAILED: processes left: $left"; exit 1; }
    left=$(as_dev git status --porcelain --untracked-files=all | grep -v '^A ' || true)
    left+=$(find /tmp /dev/shm /run /var/tmp -mindepth 1 -user dev)
    [ -z "$left" ] || { echo "FAILED: files left: $left"; exit 1; }
    echo "no process and no stray file left; the state directory holds:"
    (cd /srv/dev && find .local -type f 2>/dev/null || true)
    echo "PASSED run"
}

check_test() {
    git config --global --add safe.directory /srv/dev/ws-cluster
    if [ "$(command -v redis-server)" = '' ]; then
        echo "-- make test without the right to install packages says what is missing:"
        if as_dev make test </dev/null >/root/test.log 2>&1; then
            echo "FAILED: it should have said so"
            exit 1
        fi
        tail -n 4 /root/test.log
        grep -q 'apt-get install redis-server' /root/test.log
    fi
    make test </dev/null
    [ -z "$(others)" ] || { echo "FAILED: processes left: $(others)"; exit 1; }
    echo "PASSED test"
}

case $what in
    run) check_run ;;
    test) check_test ;;
    all) check_run && check_test ;;
esac
INSIDE

echo "== $what"
# A process namespace: leftover processes end with its first process. A mount namespace: the mounts
# are invisible outside.
timeout --foreground 2400 unshare --mount --pid --fork --propagation private bash -c '
    set -e
    # In it / is a mount point, as on a machine: unshare(1) changes how its mounts are passed on.
    mount --bind "$1" "$1"
    mount -t proc proc "$1/proc"
    mount --rbind /dev "$1/dev"
    mount -t tmpfs tmpfs "$1/dev/shm"
    mount --rbind /sys "$1/sys"
    exec chroot "$1" /usr/bin/env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        HOME=/root LANG=C.UTF-8 bash /root/check "$2" "$3"
' check "$root" "$what" "${RUN_ARGS:-}" </dev/null
