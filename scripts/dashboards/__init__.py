"""The Grafana dashboards of docker/grafana/, written from Python."""
