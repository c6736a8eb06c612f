"""Lay out a spool, start a primary, and drain one into the other.

Every command runs as a user would type it, in a folder of its own. Exit status:
0 when everything went as it should, 1 with the reasons otherwise.

    python -m tests.demo [FOLDER]      (a new folder; ./demo is made anew)
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from tests.demo import primary, spool, tree
from tests.support.smtp_peer.peer import PeerThread

#: Of the Postfix samples: four recipients, one of them deferred at first.
INTERESTING: Final = "CC30E212CA1"
#: Refused recipients rest in bounce-pending, so something remains.
RECIPIENTS_REMAIN: Final = 5

_CONFIG: Final = """\
[primary]
host = "127.0.0.1"
port = {port}
helo = "{backup}"
domains = {domains}

[health]
accept = ["{known_good}"]

[throttle]
rate = "20/second"
ramp = "4s"  # five minutes by default, but you are looking on

[retry]  # a minute and an hour by default, likewise
first = "2s"
long_first = "2s"

[ledger]
url = "ledger.db"

[telemetry]
traces = "file:traces.jsonl"
addresses = "plain"
"""


class Demo:
    """One demonstration in one folder."""

    def __init__(self, folder: Path) -> None:
        """Use the folder, which is empty."""
        self.folder = folder
        self.problems: list[str] = []
        self._drainer = Path(sys.executable).with_name("drainer")
        self._environment = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith("DRAINER_")
        }
        if not sys.stdout.isatty():
            self._environment.setdefault("COLUMNS", "130")

    def run(self) -> list[str]:
        """Show everything; return what went wrong."""
        say("A backup's spool: queue files made by a real Postfix, and a Maildir.")
        spool.lay_out(self.folder)
        with PeerThread(primary.script()) as peer:
            say("A primary: it knows not everybody, and is too busy for some at first.")
            self._write_config(peer.port)
            self._drain()
            self._look_back()
            self._compare(peer)
        return self.problems

    def _write_config(self, port: int) -> None:
        text = _CONFIG.format(
            port=port,
            backup=spool.BACKUP,
            domains=json.dumps(primary.DOMAINS, ensure_ascii=False),
            known_good=primary.KNOWN_GOOD,
        )
        (self.folder / "drainer.toml").write_text(text, "utf-8")
        self._command("cat", "drainer.toml")

    def _drain(self) -> None:
        sources = ("postfix:spool", "maildir:Maildir")
        say("Is it well?")
        self._command("drainer", "check")
        say("What would be sent?")
        self._command("drainer", "plan", *sources)
        say("Send it.")
        self._command("drainer", "drain", *sources, expected=RECIPIENTS_REMAIN)
        say(f"Exit status {RECIPIENTS_REMAIN}: recipients remain. Where do all stand?")

    def _look_back(self) -> None:
        self._command("drainer", "status")
        self._command("drainer", "list", "--state", "bounce-pending")
        say("What became of one message, and why?")
        self._command("drainer", "why", INTERESTING)
        say("The same as its trace, from the file of OTLP spans:")
        for line in tree.tree(self._trace()):
            print("  " + line)

    def _trace(self) -> list[tree.Span]:
        decisions = self._facts("why", INTERESTING)["decisions"]
        spans = tree.spans_of(self.folder / "traces.jsonl", decisions[0]["trace_id"])
        names = [span["name"] for span in spans]
        self._expect("attempts in the trace", names.count("attempt"), 2)
        self._expect("root spans in the trace", names.count("message"), 1)
        return spans

    def _compare(self, peer: PeerThread) -> None:
        """Hold what drainer says against what the primary saw."""
        status = self._facts("status")
        states = {state: n for state, n in status["states"].items() if n}
        seen = [r.reply for m in peer.transactions for r in m.recipients]
        replies = primary.counted(r for r in seen if r)
        accepted = sum(len(message.forward_paths) for message in peer.accepted)
        self._expect("violations of SMTP", peer.violations, [])
        self._expect("sum of the states", sum(states.values()), status["spooled"])
        self._expect("delivered recipients", states.get("delivered"), accepted)
        self._expect(
            "bounce-pending", states.get("bounce-pending"), len(primary.UNKNOWN)
        )
        self._expect("deferred replies", replies["deferred"], len(primary.BUSY))
        others = set(states) - {"delivered", "bounce-pending", "held"}
        self._expect("other states", others, set())

    # --- plumbing

    def _command(self, *words: str, expected: int = 0) -> None:
        print(f"$ {shlex.join(words)}", flush=True)
        done = subprocess.run(
            self._resolved(words), cwd=self.folder, env=self._environment, check=False
        )
        self._expect(f"exit status of {words[:2]}", done.returncode, expected)

    def _facts(self, *words: str) -> dict[str, Any]:
        done = subprocess.run(
            self._resolved(("drainer", *words, "--json")),
            cwd=self.folder,
            env=self._environment,
            check=True,
            capture_output=True,
        )
        facts: dict[str, Any] = json.loads(done.stdout)
        return facts

    def _resolved(self, words: tuple[str, ...]) -> list[str]:
        program = str(self._drainer) if words[0] == "drainer" else words[0]
        return [program, *words[1:]]

    def _expect(self, what: str, found: object, expected: object) -> None:
        if found != expected:
            self.problems.append(f"{what}: {found!r}, not {expected!r}")


def say(text: str) -> None:
    """Tell the reader what comes."""
    print(f"\n# {text}", flush=True)


def empty_folder(path: Path) -> Path:
    """Return the folder, made anew if an earlier demo made it; SystemExit otherwise."""
    if (path / "drainer.toml").exists() and (path / "spool").exists():
        shutil.rmtree(path)
    try:
        path.mkdir(parents=True)
    except FileExistsError:
        raise SystemExit(f"{path} exists and is no demo: name another folder") from None
    return path


def main(arguments: list[str]) -> int:
    """Run the demo; return the exit status."""
    folder = empty_folder(Path(arguments[0] if arguments else "demo").absolute())
    problems = Demo(folder).run()
    for problem in problems:
        print(f"demo: {problem}", file=sys.stderr)
    if not problems:
        say(f"All as it should be. Look around in {folder}.")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
