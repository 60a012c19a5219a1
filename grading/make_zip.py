"""Make autograder.zip, the file a teacher uploads to Gradescope: the grader, what it needs, and how to start it.

python grading/make_zip.py
"""

import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILES = {
    "setup.sh": "grading/gradescope/setup.sh",
    "run_autograder": "grading/gradescope/run_autograder",
    "grader.py": "grader.py",
    **{
        name: name
        for name in (
            "grading/__init__.py",
            "grading/checks.py",
            "grading/reference.py",
            "grading/worker.py",
            "grading/training.csv",
        )
    },
}
EXECUTABLE, READABLE = 0o755, 0o644
REQUIREMENTS = "torch==2.13.0\nnumpy>=1.26\n"


def make_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        contents = {name: (ROOT / source).read_bytes() for name, source in FILES.items()}
        for name, content in {**contents, "requirements.txt": REQUIREMENTS.encode()}.items():
            entry = zipfile.ZipInfo(name)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (EXECUTABLE if name in ("setup.sh", "run_autograder") else READABLE) << 16
            archive.writestr(entry, content)


if __name__ == "__main__":
    make_zip(ROOT / "autograder.zip")
    print("wrote autograder.zip: upload it under Configure Autograder")
