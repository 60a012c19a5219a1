"""Hostile solutions: what their code tries, and what comes of it with and without the sandbox.

REFUSED: it fails. CONTAINED: it succeeds, and harms nothing but its own result. POSSIBLE: it can harm the grader.
"""

from dataclasses import dataclass

REFUSED, CONTAINED, POSSIBLE = "refused", "contained", "possible"


@dataclass(frozen=True)
class Attack:
    """What a models.py does when it is imported.

    code: ANSWERS in it is the path of a file with answers, OTHER that of a scratch file.
    with_sandbox, without: what comes of it.
    """

    code: str
    with_sandbox: str = REFUSED
    without: str = REFUSED


EMPTY_THE_GUARD = """
import gc
for found in gc.get_objects():
    if type(found) is type(lambda: 0) and found.__qualname__ == "_make_hook.<locals>.hook":
        cells = dict(zip(found.__code__.co_freevars, found.__closure__))
        cells["forbidden_events"].cell_contents = ("~",)
        cells["forbidden"].cell_contents = ()
        cells["writing"].cell_contents = 0
"""

ATTACKS = {
    "opens the answers": Attack("open(ANSWERS).read()"),
    "empties the guard, then opens the answers": Attack(f"{EMPTY_THE_GUARD}\nopen(ANSWERS).read()", without=POSSIBLE),
    "opens the answers in a subinterpreter": Attack(
        "import _xxsubinterpreters as s\ni = s.create()\ns.run_string(i, f'open({ANSWERS!r}).read()')", without=POSSIBLE
    ),
    "writes over a file by torch.jit": Attack(
        "import torch\nmodule = torch.jit.trace(torch.nn.Linear(1, 1), torch.ones(1))\nmodule.save(OTHER)",
        without=POSSIBLE,
    ),
    "writes over a file by the guard's gap": Attack(
        f"{EMPTY_THE_GUARD}\nwith open(OTHER, 'r+') as f:\n    f.write('x')"
    ),
    "limits the memory of the grader": Attack(
        "import os, resource\n"
        "resource.prlimit(os.getppid(), resource.RLIMIT_AS, resource.getrlimit(resource.RLIMIT_AS))",
        without=POSSIBLE,
    ),
    "lifts its own limits": Attack(
        "import resource\nresource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))",
        without=POSSIBLE,
    ),
    "opens a socket": Attack("import socket\nsocket.socket()"),
    "opens a socket in a subinterpreter": Attack(
        "import _xxsubinterpreters as s\ni = s.create()\ns.run_string(i, 'import socket; socket.socket()')",
        without=POSSIBLE,
    ),
    "makes a pipe with a name": Attack("import os\nos.mkfifo(OTHER + '.pipe')", without=POSSIBLE),
    "makes shared memory": Attack(
        "import _posixshmem, os\n_posixshmem.shm_open('/hostile', os.O_CREAT | os.O_RDWR, mode=384)\n"
        "_posixshmem.shm_unlink('/hostile')",
        without=POSSIBLE,
    ),
    "starts a process": Attack("import subprocess\nsubprocess.run(['true'])"),
    "forks by the guard's gap": Attack(
        f"{EMPTY_THE_GUARD}\nimport os\nif os.fork() == 0:\n    os._exit(0)", without=POSSIBLE
    ),
    "kills the grader by the guard's gap": Attack(
        f"{EMPTY_THE_GUARD}\nimport os\nos.kill(os.getppid(), 0)", without=POSSIBLE
    ),
    "leaves its process group": Attack("import os\nos.setsid()"),
    "changes the mode of a file": Attack(f"{EMPTY_THE_GUARD}\nimport os\nos.chmod(OTHER, 0o777)", without=POSSIBLE),
    "takes all memory": Attack("import torch\ntorch.ones(2**33)"),
    "writes a large file by the guard's gap": Attack(f"{EMPTY_THE_GUARD}\nopen(OTHER, 'wb').write(b'x' * 2**20)"),
    "prints without end": Attack("for _ in range(10**5):\n    print('x' * 1000)", CONTAINED, CONTAINED),
    "starts threads": Attack("import threading\nthreading.Thread(target=print).start()", CONTAINED, CONTAINED),
}
PROBE = """
try:
{code}
except BaseException as error:
    raise RuntimeError("refused: " + type(error).__name__)
raise RuntimeError("possible")
"""


def solution(attack: Attack, answers: str, other: str) -> str:
    """The text of a models.py whose import reports what came of the attack."""
    code = "\n".join(f"    {line}" for line in attack.code.strip().splitlines())
    return f"ANSWERS, OTHER = {answers!r}, {other!r}\n{PROBE.format(code=code)}"
