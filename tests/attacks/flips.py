"""Flipped bits in checkpoints and data: noticed, or without effect."""

import shutil
from pathlib import Path

from tests.attacks import runs
from tests.attacks.programs import Program, limit_memory
from tests.attacks.runner import Attack, Broken, Case, Counts

HALF = 2  # epochs before the flip
FAMILIES = ("multitask", "mmoe", "dyadic", "closed_form")
QUESTION = ["--recommend", 1, 2, 3, "--json", "--logdir", "run", "--device", "cpu"]


def prepare(folder: Path) -> None:
    """For each family a run that has half of its epochs, the whole one, and the answer of each."""
    for family in FAMILIES:
        runs.reference(folder, family, runs.arguments(family))
        runs.reference(folder, f"{family}-half", runs.arguments(family, HALF))
        if family != "dyadic":
            shutil.copytree(folder / f"{family}-half", folder / "run")
            asked = Program(QUESTION, folder, name=f"{family}.answer")
            if not asked.require_decent_end():
                raise Broken(asked.last_words)
            shutil.rmtree(folder / "run")


def case(given: Case) -> Counts:
    family = FAMILIES[given.number % len(FAMILIES)]
    run = given.folder / "run"
    shutil.copytree(given.shared / f"{family}-half", run)
    names = [name for name in ("last.pt", "best.pt", "data.npz") if (run / name).is_file()]
    name = given.random.choice(names)
    flip_bits(given, run / name)
    if family != "dyadic" and given.random.random() < 0.4:
        asked = Program(QUESTION, given.folder, before=limit_memory)
        if not asked.require_decent_end():
            return {"noticed": 1, "flips": 1}
        if asked.output != (given.shared / f"{family}.answer.out").read_text():
            raise Broken(f"{name} of {family} has a flipped bit, and --recommend answers otherwise without a word")
        return {"harmless": 1, "flips": 1}
    resumed = Program(["--resume", "run", "--epochs", runs.EPOCHS], given.folder, before=limit_memory)
    if not resumed.require_decent_end():
        return {"noticed": 1, "flips": 1}
    try:
        runs.require_same_run(run, given.shared / family)
    except Broken as error:
        raise Broken(f"{name} of {family} has a flipped bit, and the resumed run ends well: {error}") from None
    return {"harmless": 1, "flips": 1}


def flip_bits(given: Case, path: Path) -> None:
    """Flip one bit, sometimes several."""
    content = bytearray(path.read_bytes())
    for _ in range(given.random.choice((1, 1, 1, 2, 16))):
        content[given.random.randrange(len(content))] ^= 1 << given.random.randrange(8)
    path.write_bytes(content)


ATTACK = Attack(
    "flips", "flipped bits in checkpoints and data", case, "flips", 100, short=24, share=0.6, prepare=prepare
)
