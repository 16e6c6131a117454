"""Prometheus, Alertmanager, node_exporter, the tracker and the stand-in receiver, run beside a cluster."""
