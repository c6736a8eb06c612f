"""Lists of recipients where operators have them: tables, databases, directories."""

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from msgspec import convert

from drainer.errors import UsageError
from drainer.policy.census.existence import (
    CATCH_ALL,
    LISTED,
    NO_ENTRIES,
    NOT_LISTED,
    Existence,
)
from drainer.runtime import databases
from drainer.sources.recipients.list_kinds import open_list
from drainer.sources.recipients.list_spec import ListSpec
from tests.support.command.runner import Bench, call, end
from tests.support.databases import servers, slapd
from tests.support.mta.postfix import SEARCH_PATH

PACKAGE = "drainer.sources.recipients"
ALICE, BOB, TAGGED = "Alice@Example.org", "bob@example.org", "alice+news@example.org"
NOBODY, GONE = "nobody@example.org", "gone@example.org"
OTHER, ANY = "x@other.example", "any@all.example"
TABLE = (
    "alice@example.org OK\nbob@example.org box\n@all.example x\n"
    "gone@example.org REJECT\n"
)
ASKED = (ALICE, BOB, TAGGED, NOBODY, GONE, OTHER, ANY)
EXPECTED = {
    ALICE: LISTED,
    BOB: LISTED,
    TAGGED: LISTED,
    NOBODY: NOT_LISTED,
    GONE: NOT_LISTED,
    OTHER: NO_ENTRIES,
    ANY: CATCH_ALL,
}


def spec(**keys: object) -> ListSpec:
    """Return a list as the operator names it."""
    return convert(keys, ListSpec)


def reasons(url: str, **more: str) -> dict[str, str]:
    """Return what a list says about each recipient."""
    found = open_list(spec(url=url, **more), "+").lookup(ASKED)
    return {mailbox: answer.reason for mailbox, answer in found.items()}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Give a spool and a configuration."""
    return Bench(tmp_path)


def test_the_configuration_has_a_table_for_a_list_that_needs_more(
    bench: Bench,
) -> None:
    """`drainer config` prints it as it can be read again."""
    entry = '{ url = "sqlite:///u.db", query = "SELECT a, \\"b\\"" }'
    lists = f'[recipients]\nlists = ["/etc/users", {entry}]\n'
    path = bench.root / "own.toml"
    path.write_text(lists, "utf-8")
    printed = call("config", "--config", path).stdout
    expected = ["/etc/users", {"url": "sqlite:///u.db", "query": 'SELECT a, "b"'}]
    assert tomllib.loads(printed)["recipients"]["lists"] == expected
    path.write_text(lists.replace("query", "sql"), "utf-8")
    refused = call("config", "--config", path)
    assert refused.code == 2
    assert "sql" in refused.stderr


# ---- tables of Postfix


@pytest.fixture
def postmap() -> str:
    """Give the program."""
    program = shutil.which("postmap", path=SEARCH_PATH)
    if program is None:
        pytest.skip("Postfix is not installed")
    return program


@pytest.mark.parametrize("kind", ["hash", "texthash"])
def test_a_table_of_postfix_is_a_list(kind: str, tmp_path: Path, postmap: str) -> None:
    """As postmap(1) lists it; its age is that of the file that Postfix reads."""
    source = tmp_path / "relay"
    source.write_text(TABLE, "utf-8")
    if kind == "hash":
        subprocess.run([postmap, f"hash:{source}"], check=True)
    long_ago = time.time() - 86400.5
    os.utime(next(tmp_path.glob("relay.*"), source), (long_ago, long_ago))
    assert reasons(f"{kind}:{source}") == EXPECTED
    age = open_list(spec(url=f"{kind}:{source}"), "+").age()
    assert age is not None
    assert age.days == 1


@pytest.mark.usefixtures("postmap")
def test_a_table_of_patterns_is_asked(tmp_path: Path) -> None:
    """A pattern that matches a random address is one of the whole domain."""
    source = tmp_path / "patterns"
    source.write_text(
        "/^gone@/ REJECT\n/^(alice|bob)@example\\.org$/ OK\n"
        "/^[a-z-]+[0-9a-f]*@all\\.example$/ OK\n",
        "utf-8",
    )
    assert reasons(f"regexp:{source}") == EXPECTED


@pytest.mark.usefixtures("postmap")
def test_a_table_is_asked_for_both_spellings_of_a_domain(tmp_path: Path) -> None:
    """It may have one in Unicode, another as A-labels, and both mean the same."""
    source = tmp_path / "patterns"
    source.write_text(
        "/^eva@b\u00fccher\\.example$/ OK\n/^ida@xn--bcher-kva\\.example$/ OK\n"
        "/@m\u00fcller\\.example$/ OK\n",
        "utf-8",
    )
    asked = ["eva@xn--bcher-kva.example", "ida@B\u00fccher.example"]
    asked += ["no@xn--bcher-kva.example", "any@xn--mller-kva.example"]
    found = open_list(spec(url=f"regexp:{source}"), "+").lookup(asked)
    said = [answer.reason for answer in found.values()]
    assert said == [LISTED, LISTED, NOT_LISTED, CATCH_ALL]


@pytest.mark.usefixtures("postmap")
@pytest.mark.parametrize("url", ["hash:{}/absent", "regexp:{}/absent", "nonsense:{}/x"])
def test_a_table_that_cannot_be_read_is_an_error(url: str, tmp_path: Path) -> None:
    """It is no table without the recipient."""
    with pytest.raises(UsageError, match="postmap"):
        reasons(url.format(tmp_path))


# ---- commands


def test_a_command_prints_a_list(tmp_path: Path) -> None:
    """In lines as a file has them; without a shell."""
    source = tmp_path / "a list; of users"
    source.write_text(TABLE, "utf-8")
    assert reasons(f"command:cat '{source}'") == EXPECTED


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("false", "exit status 1$"),
        ("sh -c 'kill -9 $$'", "signal 9$"),
        ("ls /absent", "cannot access"),
        ("absent-program", "was not found"),
        ("true", "no address"),
        ("cat 'x", "quotation"),
        ("", "names no program"),
    ],
)
def test_a_command_that_fails_is_an_error(command: str, words: str) -> None:
    """A part of a list would make recipients unknown that exist."""
    with pytest.raises(UsageError, match=words):
        reasons(f"command:{command}")


# ---- databases


QUERY = "SELECT name || '@' || domain FROM users WHERE name NOT LIKE 'gone%'"


def test_a_query_of_a_database_is_a_list(
    database_servers: Callable[[str], servers.Server], tmp_path: Path
) -> None:
    """Its first column; the password comes from a file. Nothing can be changed."""
    url = databases.parse(database_servers("postgresql").fresh())
    engine = databases.server_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE users (name text, domain text)"))
        connection.execute(sa.text("CREATE SEQUENCE changes"))
        for line in TABLE.splitlines():
            name, _, domain = line.split()[0].partition("@")
            values = {"name": name, "domain": domain}
            connection.execute(
                sa.text("INSERT INTO users VALUES (:name, :domain)"), values
            )
    engine.dispose()
    password = tmp_path / "password"
    password.write_text(f"{url.password}\n", "utf-8")
    password.chmod(0o600)
    bare = url.set(password=None).render_as_string()
    more = {"password_file": str(password)}
    assert reasons(bare, query=QUERY, **more) == EXPECTED
    with pytest.raises(UsageError, match="read-only"):
        reasons(bare, query="SELECT nextval('changes')", **more)


def test_a_database_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    """Without a query, a file or a table; and it makes no file."""
    path = tmp_path / "users.db"
    with pytest.raises(UsageError, match="query"):
        reasons(f"sqlite:///{path}")
    with pytest.raises(UsageError, match="unable to open"):
        reasons(f"sqlite:///{path}", query=QUERY)
    assert not path.exists()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE users (name, domain)")
    with pytest.raises(UsageError, match="no address"):
        reasons(f"sqlite:///{path}", query=QUERY)
    with pytest.raises(UsageError, match="readonly"):
        reasons(f"sqlite:///{path}", query="INSERT INTO users VALUES ('a', 'b')")
    with pytest.raises(UsageError, match="unknown kind"):
        reasons("oracle://host/users", query=QUERY)


# ---- LDAP


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[slapd.Slapd]:
    """Give a directory of more users than a server returns together."""
    if reason := slapd.missing_reason():
        pytest.skip(reason)
    users = ["alice@example.org", "bob@example.org", "a(b)*@star.example"]
    users += [f"u{n}@many.example" for n in range(1500)]
    with slapd.serve(tmp_path_factory.mktemp("slapd"), users) as running:
        yield running


@pytest.fixture
def login(tmp_path: Path) -> dict[str, str]:
    """Give what the entry of a list says about the login."""
    password = tmp_path / "ldap-password"
    password.write_text(slapd.PASSWORD, "utf-8")
    password.chmod(0o600)
    return {
        "base": slapd.BASE,
        "bind_dn": f"cn=reader,{slapd.BASE}",
        "password_file": str(password),
    }


def test_a_directory_is_read_as_a_whole(
    directory: slapd.Slapd, login: dict[str, str]
) -> None:
    """Page by page, and with the addresses of every attribute that is named."""
    entry = spec(url=directory.url, attributes=("mail", "mailLocalAddress"), **login)
    found = open_list(entry, "+").lookup(
        [ALICE, NOBODY, OTHER, "u1499@many.example", "alias-u7@many.example"]
    )
    assert [answer.existence for answer in found.values()] == [
        Existence.KNOWN,
        Existence.UNKNOWN,
        Existence.CANNOT_TELL,
        Existence.KNOWN,
        Existence.KNOWN,
    ]


@pytest.mark.parametrize("text", ["(mail=%s)", "(&(uid=%u)(mail=*@%d))"])
def test_a_filter_with_a_placeholder_is_asked_for_each_address(
    directory: slapd.Slapd, login: dict[str, str], text: str
) -> None:
    """What an address has in it is no part of the filter (RFC 4515 3)."""
    entry = spec(url=directory.url, filter=text, **login)
    known = open_list(entry, "+")
    stranger, odd = '"*"@star.example', "a(b)*@star.example"
    found = known.lookup([ALICE, TAGGED, NOBODY, OTHER, stranger, odd])
    existences = [answer.existence.value for answer in found.values()]
    assert existences[:4] == ["known", "known", "unknown", "cannot-tell"]
    assert found[stranger].existence is not Existence.KNOWN
    assert known.lookup([BOB])[BOB].reason == LISTED


def test_tls_needs_a_certificate_that_is_trusted(
    directory: slapd.Slapd, login: dict[str, str], bench: Bench
) -> None:
    """A process reads once which authorities libldap trusts."""
    lists = json.dumps([{"url": directory.tls_url, **login}])
    trusting = {"LDAPTLS_CACERT": str(directory.certificate)}
    bench.add(ALICE, NOBODY)
    results = [
        end(bench.start("census", f"postfix:{bench.spool}", "--json", env=env))
        for env in (
            os.environ | {"DRAINER_RECIPIENTS__LISTS": lists} | more
            for more in ({}, trusting)
        )
    ]
    assert [result.code for result in results] == [2, 0], results[1].stderr
    assert "LDAP" in results[0].stderr
    assert (results[1].json["known"], results[1].json["unknown"]) == (1, 1)


def test_a_directory_that_cannot_be_searched_is_an_error(
    directory: slapd.Slapd, login: dict[str, str]
) -> None:
    """A refused login, a wrong base or filter, no password, no server."""
    for change, words in (
        ({"bind_dn": f"cn=stranger,{slapd.BASE}"}, "Invalid credentials"),
        ({"password_file": ""}, "needs password_file"),
        ({"bind_dn": ""}, "Insufficient access"),
        ({"base": "dc=elsewhere"}, "No such object"),
        ({"filter": "(mail="}, "filter"),
        ({"filter": "(mail=*.nowhere)"}, "no address"),
        ({"url": "ldap://127.0.0.1:1"}, "contact"),
    ):
        with pytest.raises(UsageError, match=words):
            open_list(spec(**({"url": directory.url} | login | change)), "+")


def test_without_python_ldap_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is an extra, and needs headers."""
    monkeypatch.delitem(sys.modules, f"{PACKAGE}.ldap_list", raising=False)
    monkeypatch.delattr(f"{PACKAGE}.ldap_list", raising=False)
    monkeypatch.setitem(sys.modules, "ldap", None)
    with pytest.raises(UsageError) as refused:
        open_list(spec(url="ldaps://user:secret@ldap.example"), "+")
    assert "secret" not in str(refused.value)
    assert "libldap-dev" in str(refused.value.hint)
