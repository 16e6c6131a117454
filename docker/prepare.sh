#!/usr/bin/env bash
# Makes what docker/compose.yml needs and what is different for every team: docker/secrets/, with new
# random keys. Run it once before the first `docker compose up`; what exists is kept.
#
# The notifications go to a stand-in for Slack and PagerDuty, http://localhost:9099/received, until you
# write your own into docker/secrets/slack_api_url and docker/secrets/pagerduty_routing_key.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

# Compose mounts the files as they are, and the containers are ordinary users: so the files can be read by
# all, and the folder can be entered only by you.
umask 022
mkdir -p secrets
chmod 700 secrets

secret() { # NAME TEXT
    if [ -s "secrets/$1" ]; then
        echo "kept secrets/$1"
    else
        printf '%s\n' "$2" >"secrets/$1"
        echo "made secrets/$1"
    fi
    chmod 644 "secrets/$1"
}
random() { od -An -N48 -tx1 /dev/urandom | tr -d ' \n'; }

secret valkey_password "$(random)"
secret token_key "$(random)"
secret api_key "$(random)"
secret admin_key "$(random)"
secret grafana_password "$(random)"
secret slack_api_url http://dead-mans-switch:9099/slack/services
secret pagerduty_routing_key stand-in
