#!/usr/bin/env bash
# Replaces the running replicas by new ones, without losing capacity: as many new ones are started as there are, and
# when all of them are healthy the old ones are stopped, one after the other. If the new ones do not become healthy they
# are removed, and the old ones stay. A replica that does not run is removed first, and none takes its place.
#
#   docker compose -f docker/compose.yml build        # or: export WS_CLUSTER_IMAGE=ws-cluster:2
#   docker/roll.sh
#
# WAIT_SECONDS (180) is how long the new ones may take. COMPOSE_FILE and COMPOSE_PROJECT_NAME are those of Compose.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export COMPOSE_FILE=${COMPOSE_FILE:-$here/compose.yml}
wait_seconds=${WAIT_SECONDS:-180}

replicas() { # [--all]: with those that do not run
    docker compose ps "$@" --quiet app | sort
}
# Not with --wait of Compose: it has ended with 0 although none of the new ones was healthy.
all_healthy() { # CONTAINER...: waits until they are; fails if one never is, or not within the time
    local states deadline=$((SECONDS + wait_seconds))
    while :; do
        states=$(docker inspect --format \
            '{{if not .State.Running}}{{.State.Status}}{{else}}{{with .State.Health}}{{.Status}}{{else}}healthy{{end}}{{end}}' "$@" | sort -u)
        [ "$states" != healthy ] || return 0
        [[ $states != *unhealthy* ]] && ((SECONDS < deadline)) || return 1
        sleep 1
    done
}
# The new image, or another WORKERS, may want another nginx.conf.
configure_nginx() {
    local loaded
    [ -n "$(docker compose ps --quiet nginx)" ] || return 0
    loaded=$(nginx_conf)
    docker compose run --rm --no-TTY --no-deps nginx-config >/dev/null || return 1
    [ "$loaded" = "$(nginx_conf)" ] || docker compose kill --signal HUP nginx
}
nginx_conf() { docker compose exec --no-TTY nginx cat /etc/ws-cluster/generated/nginx.conf 2>/dev/null | cksum; }

old=$(replicas)
if [ -z "$old" ]; then
    echo "no replica runs; start the cluster first: docker compose -f docker/compose.yml up --detach --wait" >&2
    exit 1
fi
count=$(wc -l <<<"$old")
# What has ended would be counted as new, and started again.
for container in $(comm -13 <(echo "$old") <(replicas --all)); do
    echo "removing ${container:0:12}, which does not run; its last line: $(docker logs --tail 1 "$container" 2>&1 || true)"
    docker rm --force --volumes "$container" >/dev/null
done
echo "starting $count new replicas beside the $count that run"

scale() { # NUMBER
    docker compose up --detach --no-recreate --no-deps --scale "app=$1" app
}

started=yes
scale $((2 * count)) || started=
# Also those that were made and could not be started.
new=$(comm -13 <(echo "$old") <(replicas --all))
remove_new() { for container in $new; do docker rm --force --volumes "$container" >/dev/null; done; }
if [ -z "$started" ] || ! all_healthy $new; then
    echo "the new replicas are not healthy; they are removed, and the old ones stay. The last lines of one:" >&2
    for container in $new; do
        docker inspect --format '{{range .State.Health.Log}}{{.Output}}{{end}}' "$container" | tail -n 1 >&2 || true
        docker logs --tail 5 "$container" >&2 || true
        break
    done
    remove_new
    exit 1
fi
if ! configure_nginx; then
    echo "nginx could not be configured for the new replicas; they are removed, and the old ones stay" >&2
    remove_new
    exit 1
fi

# Each has the stop_grace_period of its service, and a volume of its own.
for container in $old; do
    echo "stopping ${container:0:12}"
    docker stop "$container" >/dev/null
    docker rm --volumes "$container" >/dev/null
done
scale "$count"
echo "$count replicas run, all of them new"
