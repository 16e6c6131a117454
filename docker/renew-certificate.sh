#!/usr/bin/env bash
# Gives nginx another certificate: docker/renew-certificate.sh CERTIFICATE KEY, both in PEM, the certificate with its
# chain. Open connections stay; new ones get the new certificate.
#
# COMPOSE_FILE and COMPOSE_PROJECT_NAME are those of Compose. For certbot, as its deploy hook:
#
#   docker/renew-certificate.sh "$RENEWED_LINEAGE/fullchain.pem" "$RENEWED_LINEAGE/privkey.pem"
#
# On a swarm docker/deploy-stack.sh comes after it: docs/how-to/swarm.md.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export COMPOSE_FILE=${COMPOSE_FILE:-$here/compose.yml:$here/tls.yml}
if [ $# -ne 2 ]; then
    echo "give the certificate and its key: docker/renew-certificate.sh fullchain.pem privkey.pem" >&2
    exit 2
fi
. "$here/certificate-check.sh"
if said=$(certificate_problem "$1" "$2"); [ -n "$said" ]; then
    echo "$said; nothing was changed" >&2
    exit 1
fi
# Both are read before anything is written: they may be the files in docker/secrets themselves.
certificate=$(cat "$1")
key=$(cat "$2")
umask 022
mkdir -p "$here/secrets"
chmod 700 "$here/secrets"
# Written in place: the container has the file itself mounted, and would keep the old one if it was replaced.
printf '%s\n' "$certificate" >"$here/secrets/tls_certificate"
printf '%s\n' "$key" >"$here/secrets/tls_key"
chmod 644 "$here/secrets/tls_certificate" "$here/secrets/tls_key"
if [ -n "$(docker compose ps --quiet nginx 2>/dev/null)" ]; then
    docker compose kill --signal HUP nginx
    echo "nginx has the new certificate"
else
    echo "the files are in place; Compose runs no nginx, and on a swarm docker/deploy-stack.sh gives them to each"
fi
