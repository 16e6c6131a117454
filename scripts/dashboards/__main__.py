"""Write docker/grafana/dashboards/; with --check, report the files that differ."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from scripts.dashboards.pages import PAGES
from scripts.dashboards.panels import document

FOLDER: Final = Path(__file__).resolve().parents[2] / "docker" / "grafana" / "dashboards"


def main() -> int:
    differ = []
    for page in PAGES:
        path, text = FOLDER / f"{page.uid}.json", document(page)
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        differ.append(path.name)
        if "--check" not in sys.argv:
            path.write_text(text, encoding="utf-8")
    if differ and "--check" in sys.argv:
        sys.stderr.write(f"run `make dashboards`: {', '.join(differ)}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
