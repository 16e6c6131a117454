"""The worker that is measured; its rpc method `longest_turn` is that of the benchmark of attacks.

python -m benchmarks.api.api_worker FILE PORT REDIS_URL
"""

import sys
from pathlib import Path

from benchmarks.attacks.attacked_worker import TurnWatch
from benchmarks.one_worker import serve


def main() -> int:
    file, port, redis_url = sys.argv[1:]
    # Its timer begins with the first call, so publishes are measured without it.
    return serve(Path(file), int(port), redis_url, {"longest_turn": TurnWatch().longest_turn})


if __name__ == "__main__":
    sys.exit(main())
