"""One target under atheris: ``python -m tests.fuzz.guided NAME FOLDER SECONDS``.

Our own ways to spoil an input are mixed with those of libFuzzer, which keeps in
FOLDER/corpus what reached new code. A finding is written to FOLDER/finding-...
"""

import importlib
import random
import sys
from pathlib import Path
from typing import Any

SLOW_SECONDS = 10
MEMORY_MB = 1024


def main() -> None:
    """Fuzz until the time is up; libFuzzer ends the process."""
    name, folder, seconds = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["drainer"]):
        registry = importlib.import_module("tests.fuzz.targets")
    kit = importlib.import_module("tests.fuzz.target")
    target = registry.TARGETS[name]
    corpus, work = folder / "corpus", folder / "work"
    for each in (corpus, work):
        each.mkdir(exist_ok=True)
    for number, seed in enumerate(target.seeds):
        (corpus / f"seed-{number}").write_bytes(seed)

    def mutate(data: bytes, size: int, seed: int) -> bytes:
        draw = random.Random(seed)  # noqa: S311 - chance, not a secret
        if draw.random() < 0.5:
            mutated: bytes = atheris.Mutate(data, size)
            return mutated
        changes = [tuple(draw.choices(range(2**16), k=3)) for _ in range(3)]
        spoilt: bytes = kit.spoil(data, changes, target.tokens)
        return spoilt[:size]

    arguments = [sys.argv[0], f"-max_total_time={seconds}", f"-timeout={SLOW_SECONDS}",
                 f"-rss_limit_mb={MEMORY_MB}", f"-max_len={kit.MAX_BYTES}",
                 f"-artifact_prefix={folder}/finding-", "-verbosity=1",
                 "-print_final_stats=0", str(corpus)]  # fmt: skip
    atheris.Setup(arguments, target.prepare(work), custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
