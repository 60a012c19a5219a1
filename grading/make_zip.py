"""Make autograder.zip, the file that a teacher uploads to Gradescope: the grader and its setup scripts.

python grading/make_zip.py
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # a script imports from its own folder otherwise

from grading.archive import write_zip
from grading.import_graph import data_files, find_modules, reachable

ROOT = Path(__file__).resolve().parent.parent
STARTS = ("grader", "grading.worker")  # the worker is started as a script
SCRIPTS = ("setup.sh", "run_autograder")  # Gradescope expects them at the top of the zip


def make_zip(path: Path) -> None:
    """Write the zip; the models.py with the solution is not in it. What a hand-in may import is that of the project."""
    known = find_modules(ROOT)
    files = {known[name] for name in reachable(STARTS, known, without=["models"])}
    files |= {file for module in files for file in data_files(module)} | {ROOT / "requirements.txt"}
    contents = {file.relative_to(ROOT).as_posix(): file.read_bytes() for file in files}
    scripts = {name: (ROOT / "grading" / "gradescope" / name).read_bytes() for name in SCRIPTS}
    write_zip(path, contents | scripts, executable=SCRIPTS)


if __name__ == "__main__":
    make_zip(ROOT / "autograder.zip")
    print("wrote autograder.zip: upload it under Configure Autograder")
