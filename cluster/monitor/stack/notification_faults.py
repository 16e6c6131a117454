"""What Slack and PagerDuty refuse, in their words."""

from __future__ import annotations

from typing import Final

ACTIONS: Final = ("trigger", "acknowledge", "resolve")
_SEVERITIES: Final = ("critical", "error", "warning", "info")


def slack_fault(document: object) -> str:
    """Slack's error code for a message; empty if the message is valid."""
    if not isinstance(document, dict):
        return "invalid_payload"
    attachments = document.get("attachments", [])
    if not isinstance(attachments, list) or not all(isinstance(a, dict) for a in attachments):
        return "invalid_attachments"
    if not document.get("text") and not attachments and not document.get("blocks"):
        return "no_text"
    return ""


def event_faults(document: object) -> list[str]:
    """PagerDuty's error texts for an event."""
    if not isinstance(document, dict):
        return ["the body must be a JSON object"]
    faults = [] if document.get("routing_key") else ["'routing_key' is missing or blank"]
    if not isinstance(document.get("dedup_key", ""), str):
        faults.append("'dedup_key' must be a text")
    action = document.get("event_action")
    if action not in ACTIONS:
        return [*faults, f"'event_action' must be one of {', '.join(ACTIONS)}"]
    if action == "trigger":
        return faults + _payload_faults(document.get("payload"), ("summary", "source", "severity"))
    return faults if document.get("dedup_key") else [*faults, "'dedup_key' is missing or blank"]


def change_faults(document: object) -> list[str]:
    """PagerDuty's error texts for a change event."""
    if not isinstance(document, dict):
        return ["the body must be a JSON object"]
    faults = [] if document.get("routing_key") else ["'routing_key' is missing or blank"]
    return faults + _payload_faults(document.get("payload"), ("summary",))


def _payload_faults(payload: object, required: tuple[str, ...]) -> list[str]:
    if not isinstance(payload, dict):
        return ["'payload' is missing"]
    faults = [f"'payload.{name}' is missing or blank" for name in required if not payload.get(name)]
    if "severity" in required and payload.get("severity") not in _SEVERITIES:
        faults.append(f"'payload.severity' must be one of {', '.join(_SEVERITIES)}")
    if len(str(payload.get("summary", ""))) > 1024:
        faults.append("'payload.summary' is longer than 1024 characters")
    return faults
