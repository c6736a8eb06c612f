"""A private rspamd for HTTP, and for Postfix as a milter; it can be killed.

It scans by itself, without Redis and without DNS.
"""

import socket
from pathlib import Path
from typing import Final

from tests.support.mta.postfix import free_port
from tests.support.mta.scan_daemon import ScanDaemon

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


class Rspamd(ScanDaemon):
    """A worker for [scan], and one for Postfix."""

    program = "rspamd"

    def __init__(self, base: Path, rules: str = "") -> None:
        """Prepare it to keep its files in ``base``; ``rules`` are more of them, Lua."""
        (base / "own.lua").write_text(rules, "utf-8")
        self._port, self._scan_port = free_port(), free_port()
        self.address = f"127.0.0.1:{self._scan_port}"
        config = base / "rspamd.conf"
        ports = {"port": self._port, "scan_port": self._scan_port}
        config.write_text(_CONFIG.format(base=base, **ports), "utf-8")
        (base / "tlds").write_text("com\nexample\norg\n", "utf-8")  # the real: seconds
        self.arguments = ("-f", "-i", "-c", str(config))

    @property
    def place(self) -> str:
        """What Postfix's smtpd_milters takes."""
        return f"inet:127.0.0.1:{self._port}"

    def answers(self) -> bool:
        """Return whether both ports take connections."""
        try:
            for port in (self._port, self._scan_port):
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            return False
        return True
