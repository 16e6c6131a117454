#!/usr/bin/env bash
# Looks for what would keep docker/compose.yml from starting, and says it in a sentence each. Changes nothing.
#
#   docker/preflight.sh && docker compose -f docker/compose.yml up --detach --wait
#
# Reads the variables of docker/.env and of the environment, as Compose does. With `--profile load`, or COMPOSE_PROFILES,
# what that profile needs is looked for, too. Ends with 1 if there is something to mend.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/certificate-check.sh"
. "$here/env-file.sh"
problems=0
problem() {
    echo "preflight: $1" >&2
    problems=$((problems + 1))
}

at_least() { # VERSION LEAST
    [ "$(printf '%s\n%s\n' "$2" "$1" | sort --version-sort | head -n 1)" = "$2" ]
}

check_engine() {
    local engine compose
    if ! command -v docker >/dev/null; then
        problem "docker is not installed: https://docs.docker.com/engine/install/"
        return
    fi
    if ! engine=$(docker version --format '{{.Server.Version}}' 2>/dev/null) || [ -z "$engine" ]; then
        problem "no Docker engine answers: start it, or see DOCKER_HOST and your rights"
        return
    fi
    # Earlier ones refuse clone3 with EPERM, and then no program of a present image can start a thread.
    at_least "$engine" 20.10.10 || problem "the Docker engine is $engine; 20.10.10 or later is needed"
    compose=$(docker compose version --short 2>/dev/null | sed 's/^v//')
    if [ -z "$compose" ]; then
        problem "docker compose is missing: install the Compose plugin, 2.24 or later"
    elif ! at_least "$compose" 2.24; then
        problem "docker compose is $compose; 2.24 or later is needed"
    fi
}

check_secrets() {
    local name path
    while read -r name; do
        path=$here/secrets/$name
        if [ ! -e "$path" ]; then
            problem "docker/secrets/$name is missing: docker/prepare.sh makes it"
        elif [ ! -s "$path" ]; then
            problem "docker/secrets/$name is empty: write the secret into it, or remove it and run docker/prepare.sh"
        else
            check_mode "$name"
        fi
    done < <(sed -n 's|^ *[a-z_]*: {file: secrets/\([a-z_]*\)}$|\1|p' "$here/compose.yml")
}

check_mode() { # SECRET: Compose mounts the file as it is, and the containers are another user
    local mode
    mode=$(stat --format %a "$here/secrets/$1")
    (((8#$mode & 4) != 0)) ||
        problem "docker/secrets/$1 has mode $mode, and user 10001 of the containers cannot read it: chmod 644"
}

check_password() { # of Valkey, which keeps the one that it was started with
    local password=$here/secrets/valkey_password said
    [ -s "$password" ] && is_running valkey || return 0
    said=$(docker compose -f "$here/compose.yml" exec -T valkey \
        sh -c 'REDISCLI_AUTH=$(cat) exec valkey-cli ping' <"$password" 2>&1)
    case "$said" in
        *WRONGPASS* | *NOAUTH* | *"invalid username-password"*)
            problem "docker/secrets/valkey_password is not what the running Valkey was started with:\
 write that back, or end the stack first (docker compose down)" ;;
    esac
}

check_certificate() { # of docker/tls.yml, if its files are there
    local certificate=$here/secrets/tls_certificate key=$here/secrets/tls_key said
    if [ -e "$certificate" ] && [ -e "$key" ]; then
        said=$(certificate_problem "$certificate" "$key")
        [ -z "$said" ] || problem "${said//"$here"/docker}"
        check_mode tls_certificate
        check_mode tls_key
    elif [ -e "$certificate" ] || [ -e "$key" ]; then
        problem "docker/secrets needs both tls_certificate and tls_key, or neither"
    fi
}

# Without an address the value may have one.
check_port() { # NAME DEFAULT WHAT SERVICE INNER_PORT [ADDRESS]: the service that publishes it, and where compose.yml does
    local value port address=${6:-}
    value=${!1:-$2}
    port=$value
    if [ -z "$address" ]; then
        port=${value##*:}
        address=${value%"$port"}
        address=${address%:}
        address=${address#[}
        address=${address%]}
    fi
    if [[ ! $port =~ ^[0-9]{1,5}$ ]] || ((10#$port < 1 || 10#$port > 65535)); then
        problem "$1 is $port; give a port from 1 to 65535"
    elif is_taken "$address" "$port" && ! publishes "$4" "$5" "$port"; then
        problem "port $port is taken, which $3 needs: end what listens there, or set $1 to another one"
    fi
}

is_taken() { # ADDRESS PORT: whether it cannot be published there; without an address it is published on all
    case $1 in
        "") listens "$2" tcp tcp6 || answers 127.0.0.1 "$2" || answers ::1 "$2" ;;
        # Who listens at all of IPv6 usually has IPv4, too.
        0.0.0.0) listens "$2" tcp || answers 127.0.0.1 "$2" ;;
        ::) listens "$2" tcp6 || answers ::1 "$2" ;;
        *) answers "$1" "$2" ;;
    esac
}

listens() { # PORT TABLE...: whether anything listens at it, at whatever address
    local at state port
    port=$(printf '%04X' "$((10#$1))")
    while read -r _ at _ state _; do
        # 0A is LISTEN.
        [ "$state" != 0A ] || [ "${at##*:}" != "$port" ] || return 0
    done < <(cat "${@/#/\/proc\/net\/}" 2>/dev/null)
    return 1
}

answers() { # ADDRESS PORT
    timeout 2 "$BASH" -c 'exec 3<>"/dev/tcp/$1/$2"' - "$1" "$2" 2>/dev/null
}

publishes() { # SERVICE INNER_PORT PORT: whether it is this stack that has the port
    [[ $(docker compose -f "$here/compose.yml" port "$1" "$2" 2>/dev/null) == *":$3" ]]
}

is_running() { # SERVICE: of this stack
    [ -n "$(docker compose -f "$here/compose.yml" ps --quiet "$1" 2>/dev/null)" ]
}

check_files() {
    local wanted hard
    wanted=${OPEN_FILES:-65536}
    hard=$(ulimit -Hn)
    if [ "$hard" != unlimited ] && ((wanted > hard)); then
        problem "OPEN_FILES is $wanted, and this machine allows $hard: set OPEN_FILES=$hard, or raise the limit of the engine"
    fi
}

# As Compose takes them: from `--profile` and from COMPOSE_PROFILES, where the other commands find all of them, too.
read_profiles() { # ARGUMENT...
    while (($#)); do
        case $1 in
            --profile=*) add_profile "${1#*=}" ;;
            --profile) [ -n "${2-}" ] && add_profile "$2" && shift || return 1 ;;
            *) return 1 ;;
        esac
        shift
    done
}

add_profile() { # NAME
    export COMPOSE_PROFILES=${COMPOSE_PROFILES:+$COMPOSE_PROFILES,}$1
}

has_profile() { # NAME
    [[ ,${COMPOSE_PROFILES:-}, == *,"$1",* || ,${COMPOSE_PROFILES:-}, == *,"*",* ]]
}

read_env_file "$here/.env" || problem "${env_file_problem//"$here"/docker}"
if ! read_profiles "$@"; then
    echo "preflight: $* is not known; what can be given is --profile NAME, as to docker compose" >&2
    exit 1
fi
check_engine
check_secrets
check_password
check_certificate
check_port HTTP_PORT 80 nginx nginx 8080
[ ! -e "$here/secrets/tls_certificate" ] || check_port HTTPS_PORT 443 "nginx for https" nginx 8443
check_port PROMETHEUS_PORT 9090 Prometheus prometheus 9090 127.0.0.1
check_port ALERTMANAGER_PORT 9093 Alertmanager alertmanager 9093 127.0.0.1
check_port GRAFANA_PORT 3000 Grafana grafana 3000 127.0.0.1
check_port RECEIVER_PORT 9099 "the stand-in for Slack and PagerDuty" dead-mans-switch 9099 127.0.0.1
! has_profile load || check_port LOCUST_PORT 8089 Locust load-master 8089 127.0.0.1
check_files
if ((problems)); then
    exit 1
fi
echo "preflight: nothing found"
