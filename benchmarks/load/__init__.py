"""One cheap load generator for every server: `python -m benchmarks.load --help`."""
