"""Pure code: cli."""
