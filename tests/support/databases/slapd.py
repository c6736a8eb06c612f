"""A private OpenLDAP server, so that lists of recipients meet the real thing."""

import contextlib
import importlib.util
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from tests.support.mta.postfix import SEARCH_PATH, free_port, wait_until
from tests.support.tls.certificates import self_signed

BASE: Final = "dc=example,dc=org"
ADMIN: Final = f"cn=admin,{BASE}"
PASSWORD: Final = "s3cret-word"  # noqa: S105 - of a server that lives for a test
_SCHEMAS: Final = ("core", "cosine", "inetorgperson", "misc")
_CONFIG: Final = """\
{includes}
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile {folder}/slapd.pid
TLSCertificateFile {certificate}
TLSCertificateKeyFile {key}
sizelimit size.soft=500 size.hard=500 size.pr=1000 size.prtotal=unlimited
database mdb
suffix "{base}"
rootdn "{admin}"
rootpw {password}
directory {folder}/data
access to * by users read by anonymous auth
"""
_ROOT: Final = f"dn: {BASE}\nobjectClass: domain\ndc: example\n"
_READER: Final = f"""
dn: cn=reader,{BASE}
objectClass: person
cn: reader
sn: reader
userPassword: {PASSWORD}
"""


class Slapd(NamedTuple):
    """The running server."""

    #: Without TLS, and with it.
    ports: tuple[int, int]
    #: What clients trust.
    certificate: Path

    @property
    def url(self) -> str:
        """Return its URL without TLS."""
        return f"ldap://127.0.0.1:{self.ports[0]}"

    @property
    def tls_url(self) -> str:
        """Return its URL with TLS."""
        return f"ldaps://127.0.0.1:{self.ports[1]}"


def missing_reason() -> str | None:
    """Say why none can run on this host; None if one can."""
    if importlib.util.find_spec("ldap") is None:
        return "python-ldap is not installed (make services)"
    found = shutil.which("slapd", path=SEARCH_PATH)
    return None if found else "slapd is not installed (make services)"


@contextlib.contextmanager
def serve(folder: Path, users: Sequence[str]) -> Iterator[Slapd]:
    """Run a server whose directory has an entry for each user, with alias."""
    ports = (free_port(), free_port())
    made = self_signed(folder)
    (folder / "data").mkdir()
    config = folder / "slapd.conf"
    schemas = [f"include /etc/ldap/schema/{name}.schema" for name in _SCHEMAS]
    config.write_text(
        _CONFIG.format(
            includes="\n".join(schemas),
            folder=folder, certificate=made.certificate, key=made.key,
            base=BASE, admin=ADMIN, password=PASSWORD,
        ),
        "utf-8",
    )  # fmt: skip
    entries = "".join(_entry(user) for user in users)
    program = shutil.which("slapd", path=SEARCH_PATH) or "slapd"
    subprocess.run(
        [program, "-T", "add", "-q", "-f", str(config)],
        input=f"{_ROOT}{_READER}{entries}".encode(),
        check=True,
        capture_output=True,
    )
    process = subprocess.Popen(
        [program, "-d", "0", "-f", str(config), "-h",
         f"ldap://127.0.0.1:{ports[0]} ldaps://127.0.0.1:{ports[1]}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_until(lambda: _answers(ports[1]), timeout=60, what="slapd")
        yield Slapd(ports, made.certificate)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=10)


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _entry(user: str) -> str:
    local = user.partition("@")[0]
    return (
        f"\ndn: uid={local},{BASE}\nobjectClass: inetOrgPerson\n"
        f"objectClass: inetLocalMailRecipient\nuid: {local}\ncn: {local}\nsn: {local}\n"
        f"mail: {user}\nmailLocalAddress: smtp:alias-{user}\n"
    )
