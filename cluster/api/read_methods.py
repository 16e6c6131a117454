"""The methods of the server API that read: streams, channels, connections, workers; and rpc."""

from __future__ import annotations

from typing import Any, Final

from cluster.api.api_keys import ApiKey
from cluster.api.request_params import Params, json_member, position_member
from cluster.errors import BAD_REQUEST, NOT_AVAILABLE
from cluster.node.node import Node
from cluster.node.survey import (
    MOST_CONNECTIONS,
    ChannelsQuestion,
    ConnectionsQuestion,
    Survey,
)
from cluster.protocol import HistoryRequest

#: Longest pattern of channels.
MOST_PATTERN: Final = 255
_PAGE: Final = 100


class ReadMethods:
    """They get parameters whose types are checked."""

    def __init__(self, node: Node, survey: Survey) -> None:
        self._node = node
        self._survey = survey

    async def history(self, params: Params) -> dict[str, Any]:
        since, reverse = position_member(params, "since"), params.get("reverse", False)
        if since is not None and reverse and since.offset == 0:
            raise BAD_REQUEST.fresh()
        request = HistoryRequest(params["channel"], params.get("limit", 0), since, reverse)
        return await self._node.server_reads.history(request)

    async def history_remove(self, params: Params) -> dict[str, Any]:
        await self._node.server_reads.remove_history(params["channel"])
        return {}

    async def presence(self, params: Params) -> dict[str, Any]:
        return await self._node.presence.read(params["channel"])

    async def presence_stats(self, params: Params) -> dict[str, Any]:
        return await self._node.presence.stats(params["channel"])

    async def channels(self, params: Params, key: ApiKey) -> dict[str, Any]:
        pattern = params.get("pattern", "")
        if len(pattern) > MOST_PATTERN:
            raise BAD_REQUEST.fresh()
        spaces = None if key.namespaces is None else sorted(key.namespaces)
        return await self._survey.channels(ChannelsQuestion(pattern, spaces))

    async def connections(self, params: Params) -> dict[str, Any]:
        if params.get("expression"):
            raise NOT_AVAILABLE.fresh()
        limit = min(params.get("limit", _PAGE), MOST_CONNECTIONS)
        return await self._survey.connections(
            ConnectionsQuestion(params["user"], params.get("cursor", ""), limit)
        )

    async def info(self, params: Params) -> dict[str, Any]:
        return await self._survey.info()

    async def rpc(self, params: Params) -> dict[str, Any]:
        data = json_member(params, "params") or b"null"
        return await self._node.commands.rpc_from_server(params["method"], data)
