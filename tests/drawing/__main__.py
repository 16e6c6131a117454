"""Draw the dashboards: `python -m tests.drawing docs/img`; tests/drawing/README.md says what it needs."""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from scripts.dashboards.__main__ import FOLDER
from scripts.dashboards.pages import PAGES
from tests.console.browser import missing
from tests.drawing.answers import Document, collected
from tests.drawing.loaded_cluster import loaded_cluster
from tests.drawing.pictures import bundle, draw


async def answers_of_a_cluster(folder: Path) -> dict[str, Document]:
    """Run the load and ask everything."""
    async with loaded_cluster(folder) as loaded:
        return await collected(loaded, time.time(), PAGES)


def asked(dashboard: dict[str, Any]) -> set[tuple[int, str]]:
    return {
        (panel["id"], target["expr"])
        for panel in dashboard["panels"]
        for target in panel.get("targets", [])
    }


def use_dashboard_of_today(document: Document) -> None:
    """Draw the answers that were kept in other places, units and colours.

    Raises:
        SystemExit: a query is another one, which the answers are not of.
    """
    path = FOLDER / f"{document['dashboard']['uid']}.json"
    today = json.loads(path.read_text(encoding="utf-8"))
    if asked(today) != asked(document["dashboard"]):
        raise SystemExit(
            f"{path.name} asks otherwise than when the answers were kept: draw it without --load"
        )
    document["dashboard"] = today


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.drawing", description=__doc__)
    parser.add_argument("pictures", type=Path, help="folder for the PNGs")
    parser.add_argument("--save", type=Path, metavar="FILE", help="keep what was drawn, as JSON")
    parser.add_argument("--load", type=Path, metavar="FILE", help="draw what --save kept")
    arguments = parser.parse_args()
    if reason := missing():
        raise SystemExit(f"not installed: {reason}")
    with tempfile.TemporaryDirectory(prefix="drawing-") as name:
        folder = Path(name)
        if arguments.load:
            documents = json.loads(arguments.load.read_text(encoding="utf-8"))
            for document in documents.values():
                use_dashboard_of_today(document)
        else:
            documents = asyncio.run(answers_of_a_cluster(folder))
        if arguments.save:
            arguments.save.write_text(json.dumps(documents), encoding="utf-8")
        (folder / "page").mkdir()
        bundle(folder / "page")
        asyncio.run(draw(documents, folder / "page", arguments.pictures))


if __name__ == "__main__":
    main()
