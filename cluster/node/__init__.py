"""What one worker can do for its clients; joins the hub to the broker and the sessions.

`node` connects clients and follows their sessions, `subscribe` prepares their subscriptions,
`commands` handles what else they ask for, `channels` keeps the hub's channels complete (joins, gaps,
position checks), `permissions` says what is allowed. All of it runs on one event loop and uses the
broker and the sessions only through the protocols declared there.
"""
