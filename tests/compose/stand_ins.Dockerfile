# Images under the names that docker/compose.yml uses, where no registry can be reached: made from
# `services:raw`, one root file system with Debian's packages. They have the programs at the paths of the
# public images, and busybox for the health checks, as those have.
FROM services:raw AS nginx
FROM services:raw AS valkey

FROM services:raw AS health
COPY busybox /usr/bin/busybox
RUN ln -sf busybox /usr/bin/wget

FROM health AS prometheus
RUN mkdir -p /prometheus && chown 65534:65534 /prometheus
USER 65534
ENTRYPOINT ["/usr/bin/prometheus"]

FROM health AS alertmanager
RUN mkdir -p /alertmanager && chown 65534:65534 /alertmanager
USER 65534
ENTRYPOINT ["/usr/bin/prometheus-alertmanager"]

FROM health AS node_exporter
USER 65534
ENTRYPOINT ["/usr/bin/prometheus-node-exporter"]

FROM services:raw AS nginx_exporter
ENTRYPOINT ["/usr/bin/prometheus-nginx-exporter"]

FROM health AS redis_exporter
RUN ln -s /usr/bin/prometheus-redis-exporter /redis_exporter
ENTRYPOINT ["/redis_exporter"]
