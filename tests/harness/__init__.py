"""What the end-to-end tests share: an independent client, a ledger, a fault proxy and a process starter.

Nothing here imports `cluster`: a fault shared by both sides would not be noticed.
"""
