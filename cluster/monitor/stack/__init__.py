"""Prometheus, Alertmanager and what belongs to them: set up, started and watched beside a cluster."""
