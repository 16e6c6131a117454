"""What the cluster counts about itself: the catalogue of families, and who keeps them.

Import the submodules: `catalogue` (the table), `worker` (counters of one worker), `supervisor`.
This package imports nothing by itself, because the value class of prometheus-client is chosen
when it is imported and depends on who imports it.
"""
