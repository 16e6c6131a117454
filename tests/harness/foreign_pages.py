"""Headers with which a browser sends what a page of another site wants."""

from __future__ import annotations

FOREIGN: list[dict[str, str]] = [
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://["},
    {"Origin": "http://127.0.0.1:1"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Host": "evil.example"},
    {"Host": "127.0.0.1.evil.example:9099"},
    {"Host": "localhost."},
    {"Host": "["},
    {"Host": ""},
]
