"""A file of JSON lines: one OTLP ExportTraceServiceRequest a line.

A program that rotates logs may rename the file at any time: the next line goes to a new
one.
"""

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from drainer.runtime.private_files import open_private
from drainer.telemetry.json_encoder import JsonEncoder
from drainer.telemetry.projector import Exporter
from drainer.telemetry.spans import Attributes, TraceSpan


class FileExporter(Exporter[TraceSpan]):
    """Appends OTLP/JSON lines to a private file."""

    def __init__(self, path: Path, resource: Attributes) -> None:
        """Open nothing yet; OSError comes with the first export."""
        self._path = path
        self._encoder = JsonEncoder(resource)
        self._descriptor: int | None = None

    def export(self, records: Iterable[TraceSpan]) -> None:
        """Append a request that holds all the spans."""
        data = memoryview(self._encoder.request(records))
        if not data:
            return
        descriptor = self._open()
        before = os.fstat(descriptor).st_size
        try:
            while data:
                data = data[os.write(descriptor, data) :]
        except OSError:
            with contextlib.suppress(OSError):  # it may be a pipe
                os.ftruncate(descriptor, before)  # no half line may stay
            raise

    def _open(self) -> int:
        """Return the descriptor of the file that has the name now."""
        if self._descriptor is not None and not self._is_rotated(self._descriptor):
            return self._descriptor
        self.close()
        self._descriptor = open_private(self._path, os.O_RDWR | os.O_APPEND)
        size = os.fstat(self._descriptor).st_size
        if size and os.pread(self._descriptor, 1, size - 1) != b"\n":
            os.write(self._descriptor, b"\n")  # a previous run died in mid-line
        return self._descriptor

    def _is_rotated(self, descriptor: int) -> bool:
        try:
            there = os.lstat(self._path)
        except FileNotFoundError:
            return True
        here = os.fstat(descriptor)
        return (here.st_dev, here.st_ino) != (there.st_dev, there.st_ino)

    def close(self) -> None:
        """Close the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
