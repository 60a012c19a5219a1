"""Make autograder.zip, the file that a teacher uploads to Gradescope: the grader and its setup scripts.

python grading/make_zip.py
"""

import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ("setup.sh", "run_autograder")  # Gradescope expects them at the top of the zip
GRADING = (
    "__init__.py", "checks.py", "classroom.py", "guard.py", "hand_in.py", "hidden_checks.py", "jobs.py", "pool.py",
    "public_checks.py", "questions.py", "reference.py", "report.py", "results.py", "signals.py", "worker.py",
    "examples.json", "training.csv",
)  # fmt: skip
MODULES = (
    "grader.py", *(f"grading/{name}" for name in GRADING),
    "config/__init__.py", "config/errors.py", "sources/__init__.py", "sources/files.py",
)  # fmt: skip
FILES = {name: f"grading/gradescope/{name}" for name in SCRIPTS} | {name: name for name in MODULES}  # in the zip: here
EXECUTABLE, READABLE = 0o755, 0o644
REQUIREMENTS = "torch==2.13.0\nnumpy>=1.26\n"


def make_zip(path: Path) -> None:
    """Write the zip; the models.py with the solution is not in it."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        contents = {name: (ROOT / source).read_bytes() for name, source in FILES.items()}
        for name, content in {**contents, "requirements.txt": REQUIREMENTS.encode()}.items():
            entry = zipfile.ZipInfo(name)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (EXECUTABLE if name in SCRIPTS else READABLE) << 16
            archive.writestr(entry, content)


if __name__ == "__main__":
    make_zip(ROOT / "autograder.zip")
    print("wrote autograder.zip: upload it under Configure Autograder")
