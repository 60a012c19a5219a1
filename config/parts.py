"""Which modules this copy of the project has: one that is made for students lacks those that hold answers."""

from pathlib import Path

from config.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
# The folders with modules of the project, those that a copy may lack among them.
ROOMS = (
    "analysis", "benchmarks", "config", "dyadic", "grading", "multitask", "serving", "sources", "training", "zoo",
)  # fmt: skip


def has_module(name: str) -> bool:
    """True if the project has this module of its own: has_module("zoo.recipe"). Imports nothing."""
    return ROOT.joinpath(*name.split(".")).with_suffix(".py").is_file()


def missing(part: str) -> str:
    """The sentence on a part of the project that this copy lacks; part: "--model mmoe"."""
    return f"this copy of the project has no {part}: it needs the full project"


def require_module(name: str, part: str) -> None:
    """Raises UserError if this copy lacks the module; part: what needs it."""
    if not has_module(name):
        raise UserError(missing(part))
