"""The checks of `drainer doctor`: probes gather facts, ``checks`` judges them."""
