"""The pages: every command runs, smaller, or is parsed; every snippet runs; every file, flag and link exists."""

import contextlib
import io
import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest
from conftest import ROOT
from torch.distributed.run import get_args_parser

import benchmark
import experiments
import grader
import main
import registry
from analysis.peers import CHAMPION, PEERS
from config import asking, cli
from grading import student_package
from grading.checks import all_checks
from multitask.task import WatchAndRate
from tests.attacks import __main__ as attacks
from training.weighting import METHODS


def parse_main(argv: list[str]):
    """Parse a command line of main.py. The only place here that knows how."""
    if asking.is_question(argv):
        return asking.parse(argv, registry.MODELS)
    return cli.parse(argv, registry.MODELS, registry.CHOICES)


def models() -> tuple[str, ...]:
    return tuple(registry.MODELS)


def tensorboard_tags() -> set[str]:
    return set(WatchAndRate.tags.values())


PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "data" / "README.md"])
EVERY_PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROGRAMS = ("python", "pip", "pytest", "tensorboard", "torchrun", "bash", "ruff", "mypy")

# Names in the pages that are no files of the project: what runs write, and what a reader writes.
WRITTEN_BY_RUNS = {
    "config.json", "metrics.csv", "result.json", "results.json", "last.pt", "best.pt", "events.out.tfevents.*",
    "table.md", "table.csv", "table.png", "runs.csv", "statistics.csv", "units.csv", "differences.csv", "published.csv",
    "users.png", "autograder.zip", "homework.zip",
    ".NAME.npz",
    "users.csv", "items.csv", "README.txt", "data.npz",
    "trials.csv", "effects.csv", "best.json", "zoo.json", "dyadic.json",
    "ml-100k.zip", "u.data", "ml-100k/", ".ratings.csv.npz", ".simulated-*.npz",
}  # fmt: skip
EXAMPLE_MODELS = {"plain"}  # of zoo/plain.py, which docs/extending.md adds
WRITTEN_BY_READERS = {
    "zoo/plain.py", "my.csv", "clicks.csv", "shown.csv", "shop.csv", "u1.base", "u1.test", "pairs.csv", "new.csv",
}  # fmt: skip
SUFFIXES = {".py", ".md", ".json", ".csv", ".png", ".txt", ".cff", ".html", ".pt", ".zip", ".npz", ".toml"}
TAG_FAMILIES = (
    "eval/", "further metrics/", "validation/", "training/", "weighting/", "gates/", "test baselines/",
)  # fmt: skip
FLAGS_OF_OTHERS = {"--index-url", "--check"}  # of pip and ruff

SMALL = ["--dataset", "simulated", "--simulated_size", "60", "80", "2400"]
SMALL_DYADS = ["--min_user", "5", "--min_item", "5", "--iterations", "200"]


def blocks(page: Path, language: str) -> list[str]:
    return [body for name, body in FENCE.findall(page.read_text(encoding="utf-8")) if name == language]


def inline_code(page: Path) -> list[str]:
    """What stands between single backticks, outside code blocks; the bar that tables escape is a bar again."""
    prose = FENCE.sub("", page.read_text(encoding="utf-8"))
    return [code.replace("\\|", "|") for code in re.findall(r"`([^`\n]+)`", prose)]


def printed_commands(page: Path) -> list[str]:
    lines = "".join(blocks(page, "bash")).splitlines()
    return [part.strip() for line in lines for part in line.split(" && ") if part.strip()]


def commands(page: Path) -> list[str]:
    """Every command of the page: those in code blocks and those in the text."""
    return printed_commands(page) + [
        code for code in inline_code(page) if code.startswith(tuple(f"{p} " for p in PROGRAMS))
    ]


def smaller(arguments: list[str]) -> list[str]:
    """The same command of main.py on a small simulated world, or on files of its own, for an epoch."""
    if asking.is_question(arguments):
        return ["19" if argument == "196" else argument for argument in arguments]
    if "--resume" in arguments:
        return ["2" if argument == "200" else argument for argument in arguments]
    if "--scale" in arguments:
        return [*arguments, "--iterations", "200", "--scale", "0.01", "--epochs", "1"]
    if "time" in arguments and "--dataset" in arguments:  # MovieLens has timestamps, and the simulated world has none
        place = arguments.index("--dataset")
        arguments = [*arguments[:place], "--ratings", "my.csv", "--rating_scale", "1", "10", *arguments[place + 2 :]]
    has_data = {"--ratings", "--train_ratings", "--feedback", "--config"} & set(arguments)
    if "--dataset" in arguments:
        place = arguments.index("--dataset")
        arguments = arguments[:place] + arguments[place + 2 :]
    dyadic = SMALL_DYADS if "dyadic" in arguments else []
    return [*arguments, *dyadic, *([] if has_data else SMALL), "--epochs", "1"]


def write_files_of_the_reader(folder: Path) -> None:
    """The files that the commands name: the reader's own data, and the result of a search."""
    pairs = [(user, item) for user in range(1, 21) for item in range(1, 16)]
    ratings = [(u, i, 1 + (u + i) % 5) for u, i in pairs]
    clicks = [(u, i, int((u + i) % 3 < 2), int((u + i) % 3 == 0)) for u, i in pairs]
    shown = [(u, i, 1, int((u + i) % 3 == 0), int(u * i % 7 == 1), int(u % 5 == 1), u, i) for u, i in pairs]
    timed = [(*row, place) for place, row in enumerate(sorted(ratings, key=lambda row: row[1]))]
    tables = {
        "my.csv": (",", timed),
        "shop.csv": (",", [("customer_code", "when", "sku", "mark"), *((u, t, i, r) for u, i, r, t in timed)]),
        "u1.base": ("\t", [row for row in ratings if (row[0] + row[1]) % 2 == 0]),
        "u1.test": ("\t", [row for row in ratings if (row[0] + row[1]) % 2 == 1]),
        "clicks.csv": (",", [("user", "item", "click", "buy"), *clicks]),
        "pairs.csv": (",", [("user", "item"), (7, 3), (12, 5)]),
        "new.csv": (",", [("user", "item", "rating"), *((f"new{u}", i, r) for u, i, r in ratings if u < 4)]),
        "shown.csv": (",", [("user", "item", "seen", "click", "save", "buy", "age", "price"), *shown]),
    }
    for name, (separator, rows) in tables.items():
        (folder / name).write_text("".join(separator.join(map(str, row)) + "\n" for row in rows), encoding="utf-8")
    (folder / "results/search").mkdir(parents=True)
    (folder / "results/search/best.json").write_text('{"model": "closed_form", "ranking": "ease", "rating_fits": 2}')


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if any(line.startswith("python main.py") for line in printed_commands(page))],
    ids=lambda page: page.relative_to(ROOT).as_posix(),
)
def test_a_reader_can_run_a_page_from_top_to_bottom(page, elsewhere, capsys):
    write_files_of_the_reader(elsewhere)
    for line in printed_commands(page):
        if line.startswith("python main.py"):
            arguments = smaller(shlex.split(line)[2:])
            assert main.main(arguments) == 0, (line, capsys.readouterr().err)


@EVERY_PAGE
def test_every_command_is_understood(page, elsewhere):
    write_files_of_the_reader(elsewhere)
    for line in commands(page):
        understand(shlex.split(line))


def understand(words: list[str]) -> None:
    """Parse a command as its program does; an unknown flag, part, check, file or program fails."""
    program, *arguments = words
    if program == "python":
        script, *arguments = arguments
        if script == "-m":
            script, *arguments = arguments
            script = script.replace(".", "/")
            script += "/__main__.py" if (ROOT / script).is_dir() else ".py"
        assert (ROOT / script).is_file(), words
        understand_script(script, arguments)
    elif program == "torchrun":
        launch = get_args_parser().parse_args(arguments)
        assert launch.training_script == "main.py"
        parse_main(launch.training_script_args)
    elif program == "pip":
        understand_pip(arguments)
    elif program == "pytest":
        understand_pytest(arguments)
    elif program == "tensorboard":
        assert arguments[::2] == ["--logdir"], words
    elif program == "bash":
        assert (ROOT / arguments[0]).is_file(), words
    else:
        assert program in ("ruff", "mypy"), words


def understand_script(script: str, arguments: list[str]) -> None:
    with contextlib.suppress(SystemExit) if "--help" in arguments else contextlib.nullcontext():
        parse_script(script, arguments)


def parse_script(script: str, arguments: list[str]) -> None:
    if script == "main.py":
        if "--config" in arguments:  # the config.json of an earlier run of the page
            place = arguments.index("--config")
            arguments = arguments[:place] + arguments[place + 2 :]
        parse_main(arguments)
    elif script == "experiments.py":
        assert experiments.parse(arguments).command
    elif script == "benchmark.py":
        options = benchmark.make_parser().parse_args(arguments)
        assert set(getattr(options, "parts", [])) <= {*benchmark.PARTS, *benchmark.FURTHER_PARTS}
    elif script == "grader.py":
        options = grader.parse(arguments)
        assert grader.select(all_checks(), options.select, options.fast)
    elif script == "tests/attacks/__main__.py":
        assert attacks.parse(arguments).jobs
    elif script == "grading/student_package.py":
        assert student_package.parse(arguments).out.suffix == ".zip"
    else:
        assert arguments == [], script


def understand_pip(arguments: list[str]) -> None:
    assert arguments[0] == "install"
    pinned = (ROOT / "requirements.txt").read_text(encoding="utf-8").split()
    files = [value for flag, value in pairwise(arguments) if flag == "-r"]
    packages = [word for word in arguments[1:] if "==" in word]
    assert files or packages
    assert all((ROOT / name).is_file() for name in files)
    assert set(packages) <= set(pinned)


def understand_pytest(arguments: list[str]) -> None:
    folders = [ROOT / word for word in arguments if word.startswith("tests")]
    assert all(folder.exists() for folder in folders)
    if "-k" in arguments:
        wanted = arguments[arguments.index("-k") + 1]
        sources = [path.read_text(encoding="utf-8") for folder in folders for path in folder.rglob("test_*.py")]
        assert any(re.search(rf"def test_\w*{wanted}", source) for source in sources), arguments


@pytest.mark.parametrize(
    ("page", "number"),
    [(page, number) for page in PAGES for number in range(len(blocks(page, "python")))],
    ids=lambda value: value.stem if isinstance(value, Path) else str(value),
)
def test_every_snippet_runs(page, number, elsewhere):
    snippet = blocks(page, "python")[number]
    for folder in re.findall(r'load_run\("(.+?)"\)', snippet):
        assert main.main([*SMALL, "--preset", "champion", "--epochs", "1", "--quiet", "--logdir", folder]) == 0
    exec(compile(snippet, f"{page.name}, snippet {number}", "exec"), {"__name__": "snippet"})


def test_the_evaluation_snippet_prints_both_metrics(elsewhere, capsys):
    snippet = blocks(ROOT / "docs" / "own-data.md", "python")[0]
    exec(compile(snippet, "own-data.md", "exec"), {})
    mrr, mse = map(float, capsys.readouterr().out.split())
    assert 0 < mrr < 1 < mse


@EVERY_PAGE
def test_every_flag_in_the_text_exists(page):
    named = {flag for code in inline_code(page) for flag in re.findall(r"(?<![-\w])--[a-z][a-z_-]*", code)}
    assert named <= known_flags()


def known_flags() -> set[str]:
    """The flags of every command, as its --help lists them."""
    parsers = [lambda model=model: parse_main(["--model", model, "--help"]) for model in models()]
    names = ("weights", "sweep", "zoo", "dyadic", "folds", "published", "search", "report", "export")
    parsers += [lambda name=name: experiments.parse([name, "--help"]) for name in names]
    names = ("multitask", "zoo", "dyadic")
    parsers += [lambda name=name: benchmark.make_parser().parse_args([name, "--help"]) for name in names]
    parsers += [lambda: grader.parse(["--help"])]
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        for parser in parsers:
            with contextlib.suppress(SystemExit):
                parser()
    of_torchrun = set(get_args_parser()._option_string_actions)
    return set(re.findall(r"--[a-z][a-z_-]*", text.getvalue())) | of_torchrun | FLAGS_OF_OTHERS


@EVERY_PAGE
def test_every_model_and_preset_in_the_text_exists(page):
    for code in inline_code(page):
        for flag, value in re.findall(r"--(model|preset) ([a-z0-9_-]+)", code):
            if flag == "preset":
                assert cli.find_preset(value)
            else:
                assert value in models() or value in EXAMPLE_MODELS


@EVERY_PAGE
def test_every_file_in_the_text_exists(page):
    missing = [code for code in inline_code(page) if looks_like_a_path(code) and not is_known_path(code, page)]
    assert missing == []


def looks_like_a_path(code: str) -> bool:
    is_plain = re.fullmatch(r"[\w.*-]+(/[\w.*-]*)*", code) is not None
    return is_plain and ("/" in code or Path(code).suffix in SUFFIXES) and not is_tag(code)


def is_tag(code: str) -> bool:
    """True for a TensorBoard tag, or for the beginning of one."""
    if code.endswith("/"):
        return code in TAG_FAMILIES and not (ROOT / code).is_dir()
    return code.startswith(TAG_FAMILIES) and not Path(code).suffix


def is_known_path(code: str, page: Path) -> bool:
    if code in WRITTEN_BY_RUNS | WRITTEN_BY_READERS or code.startswith(("run/", "results/")):
        return True
    if page.parent.name == "data" and re.match(r"ml-[\w-]+/", code):  # data sets, as GroupLens names them
        return True
    return (ROOT / code).exists() or (page.parent / code).exists()


@EVERY_PAGE
def test_every_tensorboard_tag_in_the_text_exists(page):
    groups = ("eval/", "further metrics/", "training/", "validation/")
    named = {code for code in inline_code(page) if code.startswith(groups)}
    named = {code for code in named if not Path(code).suffix and not code.endswith("/")}
    assert named <= tensorboard_tags()


@EVERY_PAGE
def test_every_link_leads_somewhere(page):
    prose = FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        linked = page.parent / name if name else page
        assert linked.is_file(), target
        assert not anchor or anchor in anchors(linked), target


def anchors(page: Path) -> set[str]:
    """The headings of a page as GitHub names them in links."""
    titles = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-") for title in titles}


def test_the_readme_leads_to_every_page():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for page in PAGES:
        if page.name != "README.md" or page.parent.name == "data":
            assert f"]({page.relative_to(ROOT).as_posix()})" in text


def test_every_picture_is_shown():
    shown = {
        target for page in PAGES for target in re.findall(r"!\[[^]]*\]\(([^)]+)\)", page.read_text(encoding="utf-8"))
    }
    assert {Path(target).name for target in shown} == {path.name for path in (ROOT / "docs" / "pictures").iterdir()}


def tree(page: Path) -> list[str]:
    """The paths that a page's file tree names; a line indented by four spaces is within the folder above it."""
    (block,) = [block for block in blocks(page, "") if block.startswith("main.py ")]
    paths, folder = [], ""
    for line in filter(None, block.splitlines()):
        name = line.split()[0]
        if not line.startswith(" "):
            folder = name if name.endswith("/") else ""
        paths.append(name if not line.startswith(" ") else folder + name)
    return paths


@pytest.mark.parametrize("page", ["README.md", "docs/design.md"])
def test_the_file_tree_is_true_and_complete(page):
    named = tree(ROOT / page)
    assert [path for path in named if not (ROOT / path).exists()] == []
    folders = {f"{path.parent.name}/" for path in ROOT.glob("*/__init__.py")}
    assert {path.name for path in ROOT.glob("*.py")} | folders <= set(named)


def test_the_design_names_every_module():
    rooms = [path.parent for path in ROOT.glob("*/__init__.py")]
    modules = {path.relative_to(ROOT).as_posix() for room in rooms for path in room.glob("*.py")}
    assert {path for path in modules if not path.endswith("__init__.py")} <= set(tree(ROOT / "docs" / "design.md"))


def test_every_model_has_a_row():
    told = (
        inline_code(ROOT / "docs" / "zoo.md")
        + inline_code(ROOT / "docs" / "dyadic.md")
        + commands(ROOT / "docs" / "dyadic.md")
        + inline_code(ROOT / "docs" / "champion.md")
    )
    words = {word for code in told for word in code.split()} | {"multitask"}
    assert set(models()) <= words


def test_every_weighting_has_a_row():
    assert set(METHODS) <= set(inline_code(ROOT / "docs" / "weighting.md"))


def test_the_peers_have_the_same_figures_everywhere():
    text = (ROOT / "docs" / "champion.md").read_text(encoding="utf-8")
    assert [peer for peer in PEERS if f"{peer.value:.4f}" not in text] == []
    assert f"**{CHAMPION.name}, both tasks** | **{CHAMPION.mrr:.4f}** | **{CHAMPION.mse:.4f}**" in text
