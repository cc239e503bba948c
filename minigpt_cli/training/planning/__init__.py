"""Before a run: what it will need, how long it will take, and what suits the machine."""
