"""What one worker can do: connect, subscribe, publish, recover, drain; joins the hub to the stores.

`node` holds the operations of clients, `channels` keeps the hub's channels whole (joins, gaps,
position checks). Both run on one event loop and speak to the broker and the sessions only through
the protocols declared there.
"""
