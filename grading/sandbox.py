"""What the kernel does not let the process of a solution do: open files it has no need of, use networks and processes.

This needs no privileges and no further program: Landlock (Linux 5.19 or newer) closes the file system, seccomp (here
for x86-64) the system calls, and resource limits bound memory, time and files. Code in the process cannot lift them, as
it can the guard, which is Python itself.

Sources: Linux kernel documentation, "Landlock: unprivileged access control" and "Seccomp BPF".
"""

import ctypes
import os
import platform
import struct
import sys
from collections.abc import Iterable
from pathlib import Path

MEMORY_BYTES = 3 * 2**30  # beside what PyTorch takes when it is loaded
OPEN_FILES = 256
SECONDS_OF_REPORTING = 5  # of processor time, beside the limit of the check

# Landlock: system calls, access rights and the ABI that first has them all.
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
ASK_VERSION, PATH_BENEATH = 1, 1
FIRST_ABI = 3
EXECUTE, READ_FILE, READ_DIR = 1 << 0, 1 << 2, 1 << 3
ALL_FILE_ACCESS = {3: (1 << 15) - 1, 5: (1 << 16) - 1}  # by the ABI that introduced the last of them
ALL_TCP, ALL_SCOPES = 0b11, 0b11  # bind and connect, from ABI 4; abstract sockets and signals, from ABI 6
NO_NEW_PRIVILEGES, SET_SECCOMP, FILTER = 38, 22, 2

READABLE = (
    "/usr", "/lib", "/lib64", "/bin", "/etc", "/dev/null", "/dev/zero", "/dev/urandom", "/dev/random",
    "/proc/cpuinfo", "/proc/meminfo", "/sys/devices/system/cpu",
)  # fmt: skip

# System calls of x86-64 that a network of six methods has no use for, and that reach beyond its process or change files
# in ways that Landlock does not cover.
FORBIDDEN_CALLS = {
    "other processes": (57, 58, 59, 62, 101, 109, 112, 129, 200, 272, 297, 308, 310, 311, 322, 424, 434, 438),
    "networks and shared memory": (29, 30, 41, 42, 49, 50, 53, 64, 68, 240, 319),
    "keys, clocks and modules of the kernel": (164, 175, 176, 227, 248, 249, 250, 298, 313, 321, 323, 425, 426, 427),
    "the view of the file system": (155, 161, 163, 165, 166, 167, 179, 304),
    "the machine and the limits": (160, 169, 170),
    "owners and modes of files": (90, 91, 92, 93, 94, 188, 189, 190, 197, 198, 199, 260, 268, 452),
    "times of files": (132, 235, 261, 280),
    "special files": (133, 259),
}
CLONE, CLONE3, PRLIMIT, TGKILL = 56, 435, 302, 234
CLONE_THREAD = 0x10000
X86_64, X32_BIT = 0xC000003E, 0x40000000  # AUDIT_ARCH_X86_64; calls of another convention
ALLOW, DENY, ABSENT = 0x7FFF0000, 0x00050000 | 1, 0x00050000 | 38  # EPERM; ENOSYS
LOAD, EQUALS, AT_LEAST, HAS_BITS, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # instructions of classic BPF
NUMBER, ARCHITECTURE, FIRST_ARGUMENT, THIRD_ARGUMENT = 0, 4, 16, 32  # offsets in struct seccomp_data


def is_available() -> bool:
    """True if the kernel can close both the file system and the system calls, as a child of this process tries out."""
    if sys.platform != "linux" or platform.machine() != "x86_64" or _landlock_version() < FIRST_ABI:
        return False
    child = os.fork()
    if child == 0:
        try:
            enter(Path(os.devnull))
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(child, 0)[1] == 0


def enter(folder: Path, forbidden: Iterable[str] = ()) -> None:
    """Close this process in, for good: it can read `folder`, Python and its packages, and system libraries.

    What holds a `forbidden` path is no package of Python, even if PYTHONPATH names it.

    Raises:
        OSError: the kernel refuses.
    """
    python = {Path(path) for path in (sys.prefix, sys.base_prefix, sys.exec_prefix, *sys.path) if path}
    closed = [Path(path).resolve() for path in forbidden]
    packages = [path for path in python if not any(inner.is_relative_to(path.resolve()) for inner in closed)]
    _restrict_files([folder, *packages, *map(Path, READABLE)])
    _restrict_calls()


def set_limits(seconds: float) -> None:
    """Bound memory, processor time and files, on Linux; a process that writes to a file is ended."""
    import resource

    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[0])
    memory = pages * resource.getpagesize() + MEMORY_BYTES
    processor_time = int(seconds) + SECONDS_OF_REPORTING
    for limit, most in [
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, processor_time),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
    ]:
        resource.setrlimit(limit, (most, most))


def _landlock_version() -> int:
    """The ABI of Landlock; below 1 if there is none."""
    return _kernel().syscall(CREATE_RULESET, None, ctypes.c_size_t(0), ASK_VERSION)


def _kernel() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _restrict_files(readable: Iterable[Path]) -> None:
    version = _landlock_version()
    access = ALL_FILE_ACCESS[max(abi for abi in ALL_FILE_ACCESS if abi <= version)]
    network, scopes = ALL_TCP if version >= 4 else 0, ALL_SCOPES if version >= 6 else 0
    content = struct.pack("QQQ", access, network, scopes)[: 8 if version < 4 else 16 if version < 6 else 24]
    kernel = _kernel()
    rules = _check(kernel.syscall(CREATE_RULESET, content, ctypes.c_size_t(len(content)), 0))
    for path in readable:
        if not path.exists():
            continue
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        reading = EXECUTE | READ_FILE | READ_DIR if path.is_dir() else READ_FILE
        _check(kernel.syscall(ADD_RULE, rules, PATH_BENEATH, struct.pack("=Qi", reading, place), 0))
        os.close(place)
    _check(kernel.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0))
    _check(kernel.syscall(RESTRICT_SELF, rules, 0))
    os.close(rules)


def _restrict_calls() -> None:
    program = b"".join(struct.pack("HBBI", *instruction) for instruction in _filter(os.getpid()))
    memory = ctypes.create_string_buffer(program)
    header = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(memory))
    _check(_kernel().prctl(SET_SECCOMP, FILTER, header, 0, 0))


def _filter(own_process: int) -> list[tuple[int, int, int, int]]:
    """Instructions (code, jump if true, jump if false, value); a jump skips this many instructions."""
    program = [
        (LOAD, 0, 0, ARCHITECTURE), (EQUALS, 1, 0, X86_64), (RETURN, 0, 0, DENY),
        (LOAD, 0, 0, NUMBER), (AT_LEAST, 0, 1, X32_BIT), (RETURN, 0, 0, DENY),
    ]  # fmt: skip
    for number in (number for numbers in FORBIDDEN_CALLS.values() for number in numbers):
        program += [(EQUALS, 0, 1, number), (RETURN, 0, 0, DENY)]
    program += [(EQUALS, 0, 1, CLONE3), (RETURN, 0, 0, ABSENT)]  # the C library then calls clone
    for number, argument, test, value in [
        (CLONE, FIRST_ARGUMENT, HAS_BITS, CLONE_THREAD),
        (PRLIMIT, THIRD_ARGUMENT, EQUALS, 0),
        (TGKILL, FIRST_ARGUMENT, EQUALS, own_process),
    ]:
        allowed = [(LOAD, 0, 0, argument), (test, 1, 0, value), (RETURN, 0, 0, DENY), (RETURN, 0, 0, ALLOW)]
        program += [(EQUALS, 0, len(allowed), number), *allowed]
    return [*program, (RETURN, 0, 0, ALLOW)]


def _check(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), "the kernel refuses to close the process in")
    return result
