"""Django Channels with the pub/sub layer of channels_redis as a peer of the benchmarks.

Rules: plain JSON over WebSocket, `{"type": "subscribe" | "publish" | "echo", …}`; a publication
reaches its group as the text that came in. Served by uvicorn on uvloop without compression, which
is faster than daphne.
"""

import argparse
import json
from typing import Any

import django
import uvicorn
from django.conf import settings


def configure(redis_url: str) -> None:
    settings.configure(
        DEBUG=False,
        SECRET_KEY="only for the benchmark",
        ALLOWED_HOSTS=["*"],
        INSTALLED_APPS=["channels"],
        LOGGING_CONFIG=None,
        CHANNEL_LAYERS={
            "default": {
                "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
                "CONFIG": {"hosts": [redis_url]},
            }
        },
    )
    django.setup()


def make_application() -> Any:
    from channels.generic.websocket import AsyncWebsocketConsumer
    from channels.routing import ProtocolTypeRouter

    class Consumer(AsyncWebsocketConsumer):  # type: ignore[misc]  # Channels ships no types
        async def connect(self) -> None:
            await self.accept()
            await self.send('{"connected":true}')

        async def receive(self, text_data: str = "", bytes_data: bytes | None = None) -> None:
            command = json.loads(text_data)
            if command["type"] == "subscribe":
                self.groups.append(command["channel"])
                await self.channel_layer.group_add(command["channel"], self.channel_name)
                await self.send('{"subscribed":true}')
            elif command["type"] == "publish":
                message = {"type": "deliver", "text": text_data}
                await self.channel_layer.group_send(command["channel"], message)
            else:
                await self.send(text_data)

        async def deliver(self, event: dict[str, str]) -> None:
            await self.send(event["text"])

    return ProtocolTypeRouter({"websocket": Consumer.as_asgi()})


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--port", type=int, required=True)
    arguments.add_argument("--redis", required=True)
    given = arguments.parse_args()
    configure(given.redis)
    uvicorn.run(
        make_application(),
        host="127.0.0.1",
        port=given.port,
        backlog=4096,
        loop="uvloop",
        http="httptools",
        ws="websockets-sansio",
        ws_per_message_deflate=False,
        lifespan="off",
        log_level="error",
        access_log=False,
        timeout_graceful_shutdown=1,
    )


if __name__ == "__main__":
    main()
