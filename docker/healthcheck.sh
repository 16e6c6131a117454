#!/bin/bash
# healthcheck.sh [PATH [PORT]]: is the replica of this container ready? Prints why not, which `docker
# inspect` shows. It is not in Python, because that would have to be started every five seconds.
set -u
path=${1:-/ready} port=${2:-${WS_CLUSTER_SERVER__ADMIN_PORT:-8001}}
exec 2>/dev/null
if ! exec 3<>"/dev/tcp/127.0.0.1/$port"; then
    echo "port $port does not answer"
    exit 1
fi
printf 'GET %s HTTP/1.0\r\nHost: localhost\r\n\r\n' "$path" >&3
read -r -t 2 _ status _ <&3
[ "${status:-}" = 200 ] && exit 0
while read -r -t 1 line && [ "${line%$'\r'}" != '' ]; do :; done <&3
read -r -t 1 reason <&3 || true
echo "not ready (${status:-no answer}): ${reason:-}"
exit 1
