"""What the cluster costs, measured beside its peers: `python -m benchmarks.run --quick`."""
