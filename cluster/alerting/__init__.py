"""The client of Prometheus and Alertmanager that the console, the monitor commands and the drills share.

`prometheus` and `alertmanager` build requests and read answers without I/O; `matchers` are the
conditions on labels in silences and routes. `http` sends a request and blocks, `async_http` sends it
from an event loop.

Rule: URLs, request documents and the reading of answers are in this package only.
"""
