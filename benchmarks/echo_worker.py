"""One worker of ours whose `rpc` handler answers with the data of the call."""

import argparse
import sys

from benchmarks.one_worker import serve
from benchmarks.paths import BENCHMARKS


def echo(_user: str, data: bytes) -> bytes:
    return data


async def echo_awaited(_user: str, data: bytes) -> bytes:
    return data


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--port", type=int, required=True)
    arguments.add_argument("--redis", required=True)
    arguments.add_argument("--awaited", action="store_true", help="the handler is a coroutine")
    given = arguments.parse_args()
    handlers = {"echo": echo_awaited if given.awaited else echo}
    return serve(BENCHMARKS / "ours.toml", given.port, given.redis, handlers)


if __name__ == "__main__":
    sys.exit(main())
