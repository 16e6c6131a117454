"""python-socketio with AsyncRedisManager as a peer of the benchmarks: one process.

Rules: the same events as the Socket.IO peer. `--via` chooses what carries it; aiohttp and uvicorn
both run on uvloop, and the benchmark uses the one that measured faster (benchmarks/README.md).
"""

import argparse
import asyncio
from typing import Any

import socketio
import uvloop


def make_server(redis_url: str, via: str) -> socketio.AsyncServer:
    server = socketio.AsyncServer(
        async_mode="aiohttp" if via == "aiohttp" else "asgi",
        client_manager=socketio.AsyncRedisManager(redis_url),
        transports=["websocket"],
        http_compression=False,
    )

    @server.event
    async def sub(sid: str, channel: str) -> bool:
        await server.enter_room(sid, channel)
        return True

    @server.event
    async def pub(_sid: str, channel: str, data: Any) -> None:
        await server.emit("msg", data, room=channel)

    @server.event
    async def echo(_sid: str, data: Any) -> Any:
        return data

    return server


def serve_with_aiohttp(server: socketio.AsyncServer, port: int) -> None:
    from aiohttp import web

    app = web.Application()
    server.attach(app)
    web.run_app(
        app,
        host="127.0.0.1",
        port=port,
        backlog=4096,
        access_log=None,
        print=None,
        loop=asyncio.new_event_loop(),
    )


def serve_with_uvicorn(server: socketio.AsyncServer, port: int) -> None:
    import uvicorn

    uvicorn.run(
        socketio.ASGIApp(server),
        host="127.0.0.1",
        port=port,
        backlog=4096,
        loop="uvloop",
        http="httptools",
        ws="websockets-sansio",
        ws_per_message_deflate=False,
        log_level="error",
        access_log=False,
        timeout_graceful_shutdown=1,
    )


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--port", type=int, required=True)
    arguments.add_argument("--redis", required=True)
    arguments.add_argument("--via", choices=["aiohttp", "uvicorn"], default="uvicorn")
    given = arguments.parse_args()
    uvloop.install()
    server = make_server(given.redis, given.via)
    serve = serve_with_aiohttp if given.via == "aiohttp" else serve_with_uvicorn
    serve(server, given.port)


if __name__ == "__main__":
    main()
