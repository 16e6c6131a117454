"""What one worker can do: connect, subscribe, publish, recover, drain; joins the hub to the stores.

`node` lets clients in and subscribes them, `calls` holds what they ask afterwards, `channels` keeps
the hub's channels whole (joins, gaps, position checks), `rules` says what is allowed. All run on one event loop and speak to the broker and the sessions only through
the protocols declared there.
"""
