"""Make tests/data/postcat with Postfix's own tools, as root.

    python -m tests.data.make_postcat_samples

The sample queue of make_postfix_samples.py is laid out again below a configuration of
its own, and ``postqueue -j`` and ``postcat -q`` print it, as an operator would who may
not copy files. No Postfix runs: postqueue then asks showq itself.
"""

import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.support.mta.postfix import PrivatePostfix, instance_directory
from tests.support.spools.samples import lay_out_postfix

DATA: Final = Path(__file__).parent


def export(target: Path, dumps: Mapping[str, str]) -> Path:
    """Print the sample queue into a folder; return that.

    ``dumps`` says which options of postcat print which file: the suffix behind the
    queue id -> the options, ``{"": "-q"}``.
    """
    target.mkdir(exist_ok=True)
    with instance_directory() as base:
        postfix = PrivatePostfix(base, hostname="backup.example")
        lay_out_postfix(postfix.queue_dir)
        for path in postfix.queue_dir.rglob("*"):
            shutil.chown(path, "postfix")
        printed = postfix.postqueue(["-j"])
        (target / "queue.json").write_bytes(printed)
        for line in printed.splitlines():
            queue_id = json.loads(line)["queue_id"]
            for suffix, options in dumps.items():
                dump = postfix.postcat([options, queue_id])
                (target / f"{queue_id}{suffix}").write_bytes(dump)
    return target


def main() -> None:
    """Make everything anew."""
    shutil.rmtree(DATA / "postcat", ignore_errors=True)
    target = export(DATA / "postcat", {"": "-q"})
    sys.stdout.write(f"{len(list(target.iterdir())) - 1} messages\n")


if __name__ == "__main__":
    main()
