#!/usr/bin/env bash
# Deploys docker/stack.yml on a swarm, or brings a running stack to what the files and variables say now, and waits until
# all of it runs. Run it on a manager of the swarm; words after it are passed to `docker stack deploy`:
#
#   docker/deploy-stack.sh [--with-registry-auth] [--resolve-image never] [--compose-file MORE.yml]
#
# It writes docker/generated/ with the image, as Compose does in a container, and names configs and secrets by their content.
# With docker/secrets/tls_certificate and docker/secrets/tls_key nginx serves https and wss: docker/stack-tls.yml.
# Ends with 1 if Swarm has taken an update back, or not all runs within WAIT_SECONDS (300). STACK_NAME (ws-cluster) is the
# name of the stack. Variables are those of docker/.env and of the environment, which comes first.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/env-file.sh"
. "$here/certificate-check.sh"

fail() {
    echo "deploy-stack: $1" >&2
    exit 1
}
read_env_file "$here/.env" || fail "$env_file_problem"
stack=${STACK_NAME:-ws-cluster}
wait_seconds=${WAIT_SECONDS:-300}

for port in HTTP_PORT HTTPS_PORT; do
    [[ ${!port:-1} =~ ^[0-9]+$ ]] || fail "$port is ${!port}; give a port: a swarm publishes it at every address"
done
[ "$(docker info --format '{{.Swarm.ControlAvailable}}' 2>/dev/null)" = true ] ||
    fail "this engine is no manager of a swarm: run docker swarm init, or call this on a manager"
docker compose version >/dev/null 2>&1 || fail "docker compose is missing: install the Compose plugin, 2.24 or later"
[ -n "$(docker node ls --quiet --filter node.label=ws-cluster.data=true)" ] ||
    fail "no machine keeps the data; choose one: docker node update --label-add ws-cluster.data=true MACHINE"
files_of() { # FOLDER FILE: the files below a folder that a file of the stack names
    sed -n "s|^ *file: \($1/\)|\1|p" "$here/$2"
}
while read -r file; do
    [ -s "$here/$file" ] || fail "docker/$file is missing: docker/prepare.sh makes it"
done < <(files_of secrets stack.yml)
compose_files=(-f "$here/compose.yml")
stack_files=(--compose-file "$here/stack.yml")
certificate=$here/secrets/tls_certificate key=$here/secrets/tls_key
if [ -e "$certificate" ] && [ -e "$key" ]; then
    problem=$(certificate_problem "$certificate" "$key")
    [ -z "$problem" ] || fail "${problem//"$here/"/docker/}"
    compose_files+=(-f "$here/tls.yml")
    stack_files+=(--compose-file "$here/stack-tls.yml")
elif [ -e "$certificate" ] || [ -e "$key" ]; then
    fail "docker/secrets needs both tls_certificate and tls_key, or neither"
fi

generate() { # SERVICE COMMAND: what the command prints, run as a service of docker/compose.yml
    docker compose -p "$stack-generated" "${compose_files[@]}" run --rm --no-TTY --no-deps --entrypoint sh "$1" -ec "$2"
}
umask 022
rm -rf "$here/generated"
mkdir "$here/generated"
trap 'docker compose -p "$stack-generated" -f "$here/compose.yml" down --volumes >/dev/null 2>&1 || true' EXIT
generate nginx-config "ws-cluster nginx-config --app=tasks.app --workers=${WORKERS:-2} \
    --file-limit=${OPEN_FILES:-65536} --processes=${NGINX_PROCESSES:-2} \
    --tls-from=/run/secrets --hsts=${HSTS:-0s}" >"$here/generated/nginx.conf"
generate monitoring-config "ws-cluster monitoring render /etc/ws-cluster/generated --swarm --secrets-dir=/run/secrets \
    --stand-in=http://dead-mans-switch:9099 --runbook-base-url=${PUBLIC_URL:-http://localhost}/runbooks >&2
    tar -C /etc/ws-cluster/generated -c ." | tar -C "$here/generated" --no-same-owner -x

version() { sha256sum | cut -c 1-12; }
NGINX_VERSION=$(version <"$here/generated/nginx.conf")
MONITORING_VERSION=$(cd "$here/generated" && cat -- *.yml templates/* | version)
version_of() { (cd "$here" && files_of "$1" "$2" | xargs cat) | version; } # FOLDER FILE
GRAFANA_VERSION=$(version_of grafana stack.yml)
SECRETS_VERSION=$(version_of secrets stack.yml)
((${#stack_files[@]} == 2)) || TLS_VERSION=$(version_of secrets stack-tls.yml)
export NGINX_VERSION MONITORING_VERSION GRAFANA_VERSION SECRETS_VERSION TLS_VERSION
docker stack deploy --prune "${stack_files[@]}" "$@" "$stack"

update_of() { docker service inspect --format '{{if .UpdateStatus}}{{.UpdateStatus.State}}: {{.UpdateStatus.Message}}{{end}}' "$1"; }
deadline=$((SECONDS + wait_seconds))
# Swarm takes a moment to begin with an update.
sleep 3
while :; do
    waiting=
    failed=()
    for service in $(docker stack services --format '{{.Name}}' "$stack"); do
        state=$(update_of "$service")
        case "$state" in
            rollback_completed* | rollback_paused* | paused*)
                failed+=("$service ($state)")
                [[ $state == rollback_completed* ]] || continue ;;
        esac
        read -r running wanted < <(docker service ls --filter "name=$service" --format '{{.Name}} {{.Replicas}}' |
            sed -n "s|^$service \([0-9]*\)/\([0-9]*\).*|\1 \2|p")
        if [ "$running" != "$wanted" ] || [[ $state == updating* || $state == rollback_started* ]]; then
            waiting="$waiting $service"
        fi
    done
    [ -n "$waiting" ] || break
    if ((SECONDS > deadline)); then
        for service in $waiting; do
            docker service ps --no-trunc --format '{{.Name}} {{.CurrentState}} {{.Error}}' "$service" | head -n 3 >&2
        done
        fail "not all runs after $wait_seconds s:$waiting"
    fi
    sleep 2
done
# Only now, when Swarm has ended with every service.
for service in "${failed[@]}"; do
    docker service ps --no-trunc --format '{{.Name}} {{.CurrentState}} {{.Error}}' "${service%% *}" | head -n 5 >&2
done
((${#failed[@]} == 0)) || fail "the update has failed: ${failed[*]}"
echo "all services of $stack run"
