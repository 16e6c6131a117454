"""What a client may do in a channel, and the channel's options, as its namespace says.

With `client.insecure` everything is allowed; without it, what no option allows is refused with 103.
(The `allow_*` options belong here.)
"""

from __future__ import annotations

from cluster.broker import HistoryPolicy
from cluster.config import ChannelOptions, Config
from cluster.errors import BAD_REQUEST, PERMISSION_DENIED, UNKNOWN_CHANNEL
from cluster.presence import PresenceMode


class ChannelPermissions:
    """The options and permissions of every channel."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._namespaces = {one.name: one.options for one in config.channel.namespaces}
        self._policies: dict[int, HistoryPolicy] = {}

    def options(self, channel: str) -> ChannelOptions:
        """The options of a channel's namespace.

        Raises:
            ClientError: 107 for a name too long or not ASCII, 102 for an unknown namespace.
        """
        if len(channel) > self._config.channel.max_length or not channel.isascii():
            raise BAD_REQUEST.fresh()
        if ":" not in channel:
            return self._config.channel.without_namespace
        namespace = channel.removeprefix("$").partition(":")[0]
        try:
            return self._namespaces[namespace]
        except KeyError:
            raise UNKNOWN_CHANNEL.fresh() from None

    def history(self, channel: str) -> HistoryPolicy:
        """How long the channel's stream keeps publications; raises as `options` does."""
        options = self.options(channel)
        policy = self._policies.get(id(options))
        if policy is None:
            has_history = options.history_size > 0 and options.history_ttl > 0
            policy = self._policies[id(options)] = HistoryPolicy(
                options.history_size if has_history else 0,
                int(options.history_ttl * 1000),
                int(options.history_meta_ttl * 1000),
            )
        return policy

    def presence_mode(self, channel: str) -> PresenceMode:
        """What the channel does with its members; raises as `options` does."""
        options = self.options(channel)
        return PresenceMode(options.presence, options.join_leave)

    def may_read_presence(self, channel: str) -> bool:
        """Whether a client may read who is in a channel, and so get its joins and leaves."""
        return not channel.startswith("$") and self._config.client.insecure

    def allow(self, channel: str) -> None:
        """Allow a client to subscribe to, publish in or read a channel.

        Raises:
            ClientError: 103 when nothing allows it, or for a private channel without a token.
        """
        if channel.startswith("$") or not self._config.client.insecure:
            raise PERMISSION_DENIED.fresh()
