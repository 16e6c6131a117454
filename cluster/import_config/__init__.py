"""`ws-cluster import-config`: a configuration of Centrifugo, read and written as ours.

formats reads the file, flat_names gives the options of version 5 their names of version 6, counterparts
is the table of what differs, conversion applies it, toml_text writes the result.
"""

from __future__ import annotations

from cluster.import_config.import_cli import add_commands

__all__ = ["add_commands"]
