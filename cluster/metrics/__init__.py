"""The metrics of the cluster: a catalogue of all families, and the code that exports them.

- `catalogue`: the table of families.
- `counters`: plain counters of a worker; `worker_metrics`: writes them to multiprocess files.
- `multiprocess`: sums those files; `supervisor_metrics`: the families of the supervisor.
- `system`: memory and process usage, from the kernel.

Import the submodules: this package imports none, because prometheus-client chooses its value class
at import, and workers and supervisor need different ones.
"""
