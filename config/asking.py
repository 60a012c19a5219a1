"""The command line of main.py that asks a trained run: --recommend, --predict and --for. Standard library only."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from config.cli import QUESTIONS, Models, Parser
from config.errors import UserError

FORMATS = (".csv", ".jsonl", ".parquet")


@dataclass(frozen=True)
class Question:
    """A parsed question; one of the first three is given.

    users: raw ids to recommend for; ("all",) for all users of the run.
    pairs: a file of pairs whose ratings or labels are to be predicted.
    new_users: a file of the ratings of users that the run does not know.
    k: items a user.
    output: the file of the answer; None: the terminal.
    as_json: answer in JSON.
    logdir: the run folder; None: the newest run.
    """

    users: tuple[str, ...]
    pairs: Path | None
    new_users: Path | None
    k: int
    output: Path | None
    as_json: bool
    logdir: Path | None
    device: str

    def __post_init__(self) -> None:
        if self.k < 1:
            raise UserError(f"--k must be at least 1, not {self.k}")
        if self.as_json and (self.output is not None or not self.users or self.wants_all):
            raise UserError("--json prints the answer to --recommend USER ...: for a file, give --output FILE.jsonl")
        if self.wants_all and self.output is None:
            raise UserError("--recommend all writes a file: add --output FILE.csv")
        if self.output is not None and self.output.suffix not in FORMATS:
            raise UserError(f"--output {self.output} must end in one of {', '.join(FORMATS)}")

    @property
    def wants_all(self) -> bool:
        return self.users == ("all",)


def is_question(argv: Sequence[str]) -> bool:
    """True where the flags ask a trained run."""
    return any(word.split("=")[0] in QUESTIONS for word in argv)


def parse(argv: Sequence[str], models: Models) -> Question:
    """Read the flags of a question.

    Raises:
        UserError: a flag is unknown, has no meaning for a trained run or has a wrong value, or two contradict.
    """
    parser = _make_parser()
    if {"-h", "--help"} & set(argv):
        parser.print_help()
        raise SystemExit(0)
    parser.explain_unknown = lambda flag: _explain(flag, models)  # type: ignore[method-assign]
    given = vars(parser.parse_args(argv))
    asked = [flag for flag in QUESTIONS if given[flag.removeprefix("--")]]
    if len(asked) > 1:
        raise UserError(f"{asked[0]} and {asked[1]} are two questions: ask one at a time")
    return Question(
        users=tuple(given["recommend"] or ()),
        pairs=given["predict"],
        new_users=given["for"],
        k=given["k"],
        output=given["output"],
        as_json=given["json"],
        logdir=given["logdir"],
        device=given["device"],
    )


def _make_parser() -> Parser:
    parser = Parser(prog="main.py", description="Ask a trained run.", allow_abbrev=False)
    add = parser.add_argument
    add("--recommend", nargs="+", metavar="USER", help="items for these users; all: for every user, into --output")
    add("--predict", type=Path, metavar="FILE", help="predictions for the pairs in a file with columns user and item")
    add("--for", type=Path, metavar="FILE", help="items for new users, from a file with columns user, item, rating")
    add("--k", type=int, default=10, metavar="N", help="items a user (default: 10)")
    add("--output", type=Path, metavar="FILE", help=f"write the answer to a new file: {', '.join(FORMATS)}")
    add("--json", action="store_true", help="with --recommend USER ...: answer in JSON")
    add("--logdir", type=Path, metavar="DIR", help="run folder (default: the newest under run)")
    add("--traceback", action="store_true", help="print the whole traceback of an error in models.py")
    add("--device", default="auto", choices=("auto", "cpu", "cuda", "mps"), help="device to compute on (default: auto)")
    return parser


def _explain(flag: str, models: Models) -> str:
    """A sentence about a flag that means something in training alone; "" for any other."""
    name = flag.removeprefix("--").removeprefix("no_")
    if name == "resume":
        return "--resume goes on training and --recommend asks a trained run: give one of them"
    known = {"model", "config", "preset"}.union(*(config.__dataclass_fields__ for config in models.values()))
    if not flag.startswith("--") or name not in known:
        return ""
    return f"{flag} means nothing to a trained run; --recommend --help lists what does"
