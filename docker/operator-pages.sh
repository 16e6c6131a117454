#!/usr/bin/env bash
# The operators' pages of docker/stack.yml, on loopback of this machine until Ctrl-C: Grafana (3000), Prometheus (9090),
# Alertmanager (9093) and the stand-in for Slack and PagerDuty (9099). Run it on any machine of the swarm.
#
# A swarm cannot publish a port on loopback only, so an nginx that is no service of the stack does. The variables are those
# of docker/.env: GRAFANA_PORT, PROMETHEUS_PORT, ALERTMANAGER_PORT, RECEIVER_PORT, NGINX_IMAGE; and STACK_NAME (ws-cluster).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/env-file.sh"
if ! read_env_file "$here/.env"; then
    echo "operator-pages: $env_file_problem" >&2
    exit 1
fi
stack=${STACK_NAME:-ws-cluster}

servers=
page() { # SERVICE PORT: the host as the browser has it, without which Grafana refuses a query
    servers+="
    server {
        listen $2;
        set \$service $1:$2;
        location / {
            proxy_pass http://\$service;
            proxy_http_version 1.1;
            proxy_set_header Host \$http_host;
            proxy_set_header Upgrade \$http_upgrade;
            proxy_set_header Connection \$connection_for;
        }
    }"
}
page grafana 3000
page prometheus 9090
page alertmanager 9093
page dead-mans-switch 9099
# Names are asked for again: a service that is updated has another address.
configuration="pid nginx.pid;
events {}
http {
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxied;
    fastcgi_temp_path fastcgi;
    scgi_temp_path scgi;
    uwsgi_temp_path uwsgi;
    resolver 127.0.0.11 valid=1s ipv6=off;
    map \$http_upgrade \$connection_for { default upgrade; '' close; }$servers
}"
exec docker run --rm --name "$stack-operator-pages" --network "${stack}_public" --read-only --cap-drop ALL \
    --security-opt no-new-privileges:true --user 10001:10001 --tmpfs /run/nginx:uid=10001,gid=10001,mode=700,size=64m \
    --memory 256m --pids-limit 4096 --env CONFIGURATION="$configuration" \
    --publish "127.0.0.1:${GRAFANA_PORT:-3000}:3000" --publish "127.0.0.1:${PROMETHEUS_PORT:-9090}:9090" \
    --publish "127.0.0.1:${ALERTMANAGER_PORT:-9093}:9093" --publish "127.0.0.1:${RECEIVER_PORT:-9099}:9099" \
    --entrypoint sh "${NGINX_IMAGE:-nginx:1.30}" -ec \
    'printf "%s\n" "$CONFIGURATION" >/run/nginx/nginx.conf
    exec nginx -p /run/nginx/ -c nginx.conf -e stderr -g "daemon off;"'
