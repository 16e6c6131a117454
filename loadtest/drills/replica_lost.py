"""ReplicaLost: one of two replicas is gone, and discovery knows it no more."""

from __future__ import annotations

from loadtest.drill import MONITORING, SERVICE, Drill, Part
from loadtest.drilling.replica import Replica
from loadtest.drilling.scene import Scene


def prepare(scene: Scene) -> None:
    Replica.of(scene).start()


def provoke(scene: Scene) -> None:
    replica = Replica.of(scene)
    # It stays afterwards: the rule remembers for an hour how many there were.
    scene.afterwards(replica.start)
    replica.stop()


DRILL = Drill(
    alert="ReplicaLost",
    breaks="the second of two replicas is stopped and taken out of discovery, as scaling down does",
    mends="it is started again",
    provoke=provoke,
    prepare=prepare,
    fires_s=150,
    resolves_s=45,
    fixed_s=20,
    takes=frozenset({Part.REPLICAS, Part.VERSIONS}),
    uses=MONITORING | SERVICE,
)
