"""Make the folder that students get, as a zip: what they need, and nothing that answers.

python grading/student_package.py OUT.zip
"""

import argparse
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # a script imports from its own folder otherwise

from config.errors import EXIT_OK, EXIT_USER_ERROR, UserError
from grading.archive import write_zip
from grading.import_graph import data_files, find_modules, reachable

ROOT = Path(__file__).resolve().parent.parent
FOLDER = "multi-task-homework"  # the zip unpacks into it
STARTS = ("main", "grader", "grading.worker")  # the worker is started as a script
# Modules, and packages with all they hold, that would answer. What only they need stays out with them.
WITHHELD = {
    "models": "the solution; students begin with starter/models.py",
    "multitask.manual_gradient": "the gradients of both forward methods, written out",
    "multitask.item_based": "rate_encoded_users is the forward pass of question 3",
    "multitask.ensemble": "the terms of equations (1) and (4), taken apart",
    "multitask.closed_form": "the same",
    "multitask.closed_form_recipe": "trains by multitask.closed_form",
    "multitask.bayesian": "adds biases to the products of two tables, as equation (1) does",
    "zoo": "its PairEncoder joins the inputs of equation (4), and its layers build an MLP",
    "dyadic": "another problem, which the homework does not ask for",
    "grading.reference": "equations (1) and (4) in NumPy",
    "grading.hidden_checks": "the checks that students do not see",
}
TEXTS = {  # in the package: here
    "models.py": "starter/models.py",
    "README.md": "starter/README.md",
    "docs/homework.md": "docs/homework.md",
    "data/README.md": "data/README.md",
    "requirements.txt": "requirements.txt",
    "LICENSE": "LICENSE",
}


def package_files() -> dict[str, Path]:
    """{path in the package: file here}."""
    known = find_modules(ROOT)
    modules = {known[name] for name in reachable(STARTS, known, without=WITHHELD)}
    files = modules | {file for module in modules for file in data_files(module)}
    own = {file.relative_to(ROOT).as_posix(): file for file in files}
    return own | {name: ROOT / source for name, source in TEXTS.items()}


def make_package(path: Path) -> int:
    """Write the zip; returns how many files it holds.

    Raises:
        UserError: `path` is not a new .zip in a folder that exists, or it cannot be written.
    """
    if path.suffix != ".zip":
        raise UserError(f"{path} must end in .zip")
    if path.exists():
        raise UserError(f"{path} exists already: give another name, or remove it first")
    if not path.parent.is_dir():
        raise UserError(f"there is no folder {path.parent}: make it first, or give another name")
    files = package_files()
    contents = {f"{FOLDER}/{name}": source.read_bytes() for name, source in files.items()}
    try:
        write_zip(path, contents)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from None
    return len(files)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="student_package.py", description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("out", metavar="OUT.zip", type=Path, help="a new file")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code: 0 written, 2 an error that the teacher can fix."""
    path = parse(argv).out
    try:
        count = make_package(path)
    except UserError as error:
        print(f"student_package.py: error: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    print(f"wrote {path}: {count} files in {FOLDER}/, without solution, hidden checks and answers")
    print("next: give it to your students; python grader.py --class DIR --csv grades.csv grades what they hand in")
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
