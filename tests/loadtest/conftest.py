"""Locust is imported once, without what it does to a process: its users are looked at, not run, here.

By default it replaces the sockets, threads and locks of the whole process by gevent's, and the tests
that come later hang: a thread is no thread any more. Locust itself is run as a program.
"""

from __future__ import annotations

import os
from typing import Final

_SWITCH: Final = "LOCUST_SKIP_MONKEY_PATCH"

os.environ[_SWITCH] = "1"
import locust  # noqa: E402, F401 - after the switch, which is for this import only

del os.environ[_SWITCH]
