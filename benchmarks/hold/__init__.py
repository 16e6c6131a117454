"""Very many connections held at once through nginx: what they cost, and what a roll under them loses."""
