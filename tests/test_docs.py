"""Every command and every snippet of the README runs as printed, only smaller."""

import re
import shlex

import pytest
from conftest import ROOT
from torch.distributed.run import get_args_parser

import main
from sources import download

README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^(python main\.py.*|pip install.*|tensorboard.*|pytest.*)$", README, re.MULTILINE)
SMALL = ["--dataset", "simulated", "--simulated_size", "60", "80", "2400"]
FILES = {"my.csv": ",", "u1.base": "\t", "u1.test": "\t"}


def smaller(arguments: list[str]) -> list[str]:
    """The same command on a small simulated world, or on files of its own, for an epoch or two."""
    if "--recommend" in arguments:
        return [{"196": "19"}.get(argument, argument) for argument in arguments]
    if "--resume" in arguments:
        return ["2" if argument == "200" else argument for argument in arguments]
    if "--dataset" in arguments:
        place = arguments.index("--dataset")
        arguments = arguments[:place] + arguments[place + 2 :]
    own_files = {"--ratings", "--train_ratings", "--feedback"} & set(arguments)
    if "dyadic" in arguments:
        arguments = [*arguments, "--min_user", "5", "--min_item", "5", "--iterations", "200"]
    if "--scale" in arguments:
        return [*arguments, "--dataset", "simulated-xing", "--scale", "0.01", "--epochs", "1"]
    return [*arguments, *([] if own_files else SMALL), "--epochs", "1"]


def test_every_command_runs_in_the_order_printed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(download, "ADDRESS", "http://127.0.0.1:9")
    for name, separator in FILES.items():
        half = 0 if name.endswith("base") else 1
        rows = [
            (u, i, 1 + (u + i) % 5)
            for u in range(1, 21)
            for i in range(1, 16)
            if name == "my.csv" or (u + i) % 2 == half
        ]
        (tmp_path / name).write_text("\n".join(separator.join(map(str, row)) for row in rows) + "\n")
    clicks = [(u, i, int((u + i) % 3 < 2), int((u + i) % 3 == 0)) for u in range(1, 21) for i in range(1, 16)]
    header = [("user", "item", "click", "buy")]
    (tmp_path / "clicks.csv").write_text("\n".join(",".join(map(str, row)) for row in header + clicks) + "\n")
    shown = [(u, i, 1, int((u + i) % 3 == 0), int(u * i % 7 == 1), int(u % 5 == 1), u, i) for u, i, *_ in clicks]
    header = [("user", "item", "seen", "click", "save", "buy", "age", "price")]
    (tmp_path / "shown.csv").write_text("\n".join(",".join(map(str, row)) for row in header + shown) + "\n")
    commands = [shlex.split(line)[2:] for line in COMMANDS if line.startswith("python main.py")]
    assert len(commands) >= 12
    for arguments in commands:
        assert main.main(smaller(arguments)) == 0, (arguments, capsys.readouterr().err)


def test_the_python_snippets_run(capsys, elsewhere):
    first, *others = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    for snippet in others:
        exec(compile(snippet, "README.md", "exec"), {"__name__": "README"})
    capsys.readouterr()
    exec(compile(first, "README.md", "exec"), {})
    mrr, mse = map(float, capsys.readouterr().out.split())
    assert 0 < mrr < 1 < mse


def test_every_flag_it_names_exists():
    from config import cli as flags

    known = set(flags._make_parser()._option_string_actions)
    for name in ("grader.py", "benchmark.py", "experiments.py"):
        known |= set(re.findall(r'"(--[a-z-]+)"', (ROOT / name).read_text(encoding="utf-8")))
    known |= set(get_args_parser()._option_string_actions)  # of torchrun
    assert set(re.findall(r"(?<![-a-z])--[a-z][a-z_-]*", README)) <= known


def test_every_torchrun_command_is_understood():
    from config import cli as flags

    for line in re.findall(r"^torchrun (.*)$", README, re.MULTILINE):
        launch = get_args_parser().parse_args(shlex.split(line))
        assert launch.training_script == "main.py"
        flags.parse(launch.training_script_args)


def test_every_experiment_it_names_is_understood():
    import experiments

    commands = re.findall(r"^python experiments\.py(.*)$", README, re.MULTILINE)
    assert len(commands) >= 2
    assert all(experiments.parse(shlex.split(line)).command for line in commands)


def test_every_benchmark_it_names_is_understood():
    import benchmark

    commands = re.findall(r"^python benchmark\.py(.*)$", README, re.MULTILINE)
    assert len(commands) >= 2
    for line in commands:
        options = benchmark.make_parser().parse_args(shlex.split(line))
        assert set(getattr(options, "parts", [])) <= set(benchmark.PARTS)


def test_every_grader_command_is_understood():
    import grader
    from grading.checks import all_checks

    commands = re.findall(r"^python grader\.py(.*)$", README, re.MULTILINE)
    assert len(commands) >= 4
    for line in commands:
        arguments = grader.parse(shlex.split(line))
        assert grader.select(all_checks(), arguments.select, arguments.fast)


@pytest.mark.parametrize("line", [line for line in COMMANDS if line.startswith("pip install")])
def test_the_requirement_files_it_names_exist(line):
    assert (ROOT / line.split()[-1]).is_file()


def test_the_list_of_files_is_complete():
    for path in ROOT.glob("*.py"):
        assert f"`{path.name}`" in README
