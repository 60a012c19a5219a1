"""What `python main.py --recommend`, `--predict` and `--for` do."""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from config.asking import Question
from config.errors import EXIT_OK, UserError
from config.text import printable
from serving.answers import as_text, describe_user
from serving.fold_in import read_new_users, require_new_users
from serving.run import TrainedRun, load_run
from serving.tables import read_pairs, require_writable, write_table
from training.console import log
from training.report import simulated_box
from training.session import newest_run
from training.terminal import terminal_width

MAX_PRINTED = 20  # new users whose lists are printed


def answer(question: Question) -> int:
    """Answer from a trained run; returns the exit code.

    Raises:
        UserError: there is no such run, an id is unknown, or a file cannot be read or written.
    """
    if question.output is not None:
        require_writable(question.output)
    run = load_run(question.logdir or newest_run(), question.device)
    if question.new_users is not None:
        _answer_new_users(question, run, question.new_users)
    elif question.pairs is not None:
        _write(question, predictions(run, question.pairs))
    elif question.output is not None:
        users = None if question.wants_all else question.users
        _write(question, run.recommend_in_blocks(users, question.k), len(run.users if users is None else users))
    else:
        _print(question, run, question.users)
    return EXIT_OK


def _answer_new_users(question: Question, run: TrainedRun, path: Path) -> None:
    """Lists for the users of a file, in its order."""
    require_new_users(run.task)
    table, notes = read_new_users(path, run.task.data)
    folded = run.fold_in(table)
    for note in (*notes, *folded.notes):
        log(f"note: {note}")
    users = list(dict.fromkeys(table["user"]))
    if question.output is not None:
        _write(question, folded.recommend_in_blocks(users, question.k), len(users))
    elif len(users) > MAX_PRINTED:
        raise UserError(f"{path} holds {len(users):,} users: add --output FILE.csv for more than {MAX_PRINTED}")
    else:
        _print(question, folded, users)


def predictions(run: TrainedRun, path: Path) -> Iterator[pd.DataFrame]:
    """`TrainedRun.predict` for the pairs of a file; UserError names the line of an unknown id."""
    for pairs in read_pairs(path):
        for kind, ids, known in (("user", pairs.users, run.users), ("item", pairs.items, run.items)):
            is_unknown = ~pd.Index(ids).isin(known)
            if is_unknown.any():
                first = is_unknown.argmax()
                more = f" ({is_unknown.sum():,} such lines from here on)" if is_unknown.sum() > 1 else ""
                raise UserError(
                    f"{path}, line {pairs.lines[first]}: {kind} {ids[first]!r} is not in the data of {run.path}{more}: "
                    "remove the line, or train on data that hold it"
                )
        yield run.predict(pairs.users, pairs.items)


def _write(question: Question, blocks: Iterator[pd.DataFrame], total: int | None = None) -> None:
    """Write a table to --output, or print it as CSV."""
    if question.output is not None:
        rows = write_table(question.output, blocks, total)
        log(f"wrote {question.output}: {rows:,} rows")
        return
    for number, block in enumerate(blocks):
        text = block.to_csv(index=False, header=not number, lineterminator="\n")
        sys.stdout.write(printable(text) if sys.stdout.isatty() else text)  # a file or a pipe gets the data as they are


def _print(question: Question, run: TrainedRun, users: Sequence[str]) -> None:
    """The answers for single users."""
    found = [describe_user(run, user, question.k) for user in users]
    simulated = run.task.data.simulated
    if question.as_json:
        header = {"run": str(run.path), "checkpoint": run.checkpoint, "simulated": simulated}
        answers = [header | one for one in found]
        print(json.dumps(answers[0] if len(answers) == 1 else answers, indent=2))
        return
    width = terminal_width(sys.stdout)
    log(*([simulated_box(width)] if simulated else []), f"{run.path}, {run.checkpoint} epoch")
    for one in found:
        log("", as_text(one, width))
