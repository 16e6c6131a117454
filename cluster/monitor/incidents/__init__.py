"""Incidents: what fired, who acknowledged it, who was notified, and how it ended."""
