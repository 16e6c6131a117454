"""The report of a run: JSON for programs, JUnit XML for CI, HTML for people."""
