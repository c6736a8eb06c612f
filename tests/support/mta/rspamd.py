"""A private rspamd for HTTP, and for Postfix as a milter; it can be killed.

It scans by itself, without Redis and without DNS.
"""

import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from typing import Final, Self

from tests.support.mta.postfix import SEARCH_PATH, free_port, wait_until

_CONFIG: Final = """\
options {{
  pidfile = "{base}/rspamd.pid";
  tempdir = "{base}";
  filters = "";
  hs_cache_dir = "{base}";
  control_socket = "{base}/control.sock mode=0600";
  dns {{ nameserver = ["127.0.0.1:9"]; timeout = 0.1s; retransmits = 1; }}
  url_tld = "{base}/tlds";
}}
logging {{ type = "console"; level = "warning"; }}
lua = "/usr/share/rspamd/rules/rspamd.lua";
lua = "{base}/own.lua";
actions {{ reject = 15; }}
worker {{
  type = "rspamd_proxy";
  bind_socket = "127.0.0.1:{port}";
  count = 1;
  milter = yes;
  timeout = 10s;
  upstream "local" {{ default = yes; self_scan = yes; }}
}}
worker {{
  type = "normal";
  bind_socket = "127.0.0.1:{scan_port}";
  count = 1;
}}
"""


class Rspamd:
    """The process and its worker; a context manager."""

    def __init__(self, base: Path, rules: str = "") -> None:
        """Prepare it to keep its files in ``base``; ``rules`` are more of them, Lua."""
        (base / "own.lua").write_text(rules, "utf-8")
        self._port, self._scan_port = free_port(), free_port()
        self._config = base / "rspamd.conf"
        ports = {"port": self._port, "scan_port": self._scan_port}
        self._config.write_text(_CONFIG.format(base=base, **ports), "utf-8")
        (base / "tlds").write_text("com\nexample\norg\n", "utf-8")  # the real: seconds
        self._process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def missing_reason() -> str | None:
        """Say why it cannot run on this host; None if it can."""
        found = shutil.which("rspamd", path=SEARCH_PATH)
        return None if found else "rspamd is not installed (make services)"

    @property
    def place(self) -> str:
        """What Postfix's smtpd_milters takes."""
        return f"inet:127.0.0.1:{self._port}"

    @property
    def address(self) -> str:
        """What [scan] takes."""
        return f"127.0.0.1:{self._scan_port}"

    def start(self) -> None:
        """Start it; returns when its port answers."""
        program = shutil.which("rspamd", path=SEARCH_PATH) or "rspamd"
        self._process = subprocess.Popen(
            [program, "-f", "-i", "-c", str(self._config)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait_until(self._answers, timeout=60, what="rspamd")

    def _answers(self) -> bool:
        try:
            for port in (self._port, self._scan_port):
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            return False
        return True

    def kill(self) -> None:
        """End it and its worker without a word; harmless when repeated."""
        process, self._process = self._process, None
        if process is not None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(timeout=10)

    def __enter__(self) -> Self:
        """Start it."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self.kill()
