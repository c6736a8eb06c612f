"""The checks of `drainer doctor`: probes collect facts, ``checks`` judges them."""
