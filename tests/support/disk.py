"""A small file system of a test's own, which can be filled up."""

import contextlib
import subprocess
from pathlib import Path
from typing import Self


class Disk:
    """A place for a ledger that can be filled up.

    It is a small file system of its own where that may be mounted. Elsewhere (not
    root, or in a container) a limit on the size of the command's files stands in.
    """

    def __init__(self, folder: Path) -> None:
        """Mount it."""
        self.folder = folder
        self._ballast = folder / "ballast"
        mounting = ["mount", "-t", "tmpfs", "-o", "size=8m,mode=700", "none"]
        done = subprocess.run(
            [*mounting, str(folder)], capture_output=True, check=False
        )
        self._mounted = done.returncode == 0

    def __enter__(self) -> Self:
        """Nothing more is needed."""
        return self

    def __exit__(self, *_: object) -> None:
        """Unmount it."""
        if self._mounted:
            subprocess.run(["umount", "--lazy", str(self.folder)], check=True)

    def fill(self, process: "subprocess.Popen[str]") -> None:
        """Leave no room at all."""
        if not self._mounted:
            limit = ["prlimit", f"--pid={process.pid}", "--fsize=1"]
            subprocess.run(limit, check=True)
            return
        with self._ballast.open("wb", buffering=0) as file:
            for size in (1 << 16, 1 << 12, 1):
                with contextlib.suppress(OSError):
                    while True:
                        file.write(bytes(size))

    def free(self) -> None:
        """Make room again."""
        self._ballast.unlink(missing_ok=True)
