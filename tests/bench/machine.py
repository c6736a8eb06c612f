"""How quiet the machine is: what is fixed work worth at this moment."""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_LOOPS = 2_000_000
_SYNCS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """What the machine gave just before a measurement."""

    #: Milliseconds for a fixed loop.
    loop_ms: float
    #: Milliseconds for writing and syncing a page, on average.
    sync_ms: float
    #: The load of the last minute, which the measurement before has a part in.
    load: float

    @classmethod
    def now(cls, folder: Path) -> Self:
        """Measure it; the disk is that of the folder."""
        os.sync()
        load = os.getloadavg()[0]
        begun = time.perf_counter()
        total = 0
        for n in range(_LOOPS):
            total += n
        loop = time.perf_counter() - begun
        path = folder / "sync"
        begun = time.perf_counter()
        with path.open("wb", buffering=0) as file:
            for _ in range(_SYNCS):
                file.write(bytes(4096))
                os.fdatasync(file.fileno())
        sync = (time.perf_counter() - begun) / _SYNCS
        path.unlink()
        return cls(loop_ms=loop * 1000, sync_ms=sync * 1000, load=load)

    def __str__(self) -> str:
        """Say it in a few words."""
        return (
            f"loop {self.loop_ms:.0f} ms, fdatasync {self.sync_ms:.2f} ms,"
            f" load {self.load:.2f}"
        )
