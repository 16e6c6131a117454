"""What the stories need: an independent client, a ledger, a fault proxy and a process starter.

Nothing here imports `cluster`: a fault shared by both sides would hide itself.
"""
