"""The installed command against real servers."""
