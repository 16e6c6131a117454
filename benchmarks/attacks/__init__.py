"""What a worker's other clients notice of an attack: `python -m benchmarks.attacks --help`."""
