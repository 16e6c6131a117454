"""The faults that drills inject, each with how it is undone."""
