"""The command line of main.py: flags and settings files become Settings.

Imports nothing heavy, so that `python main.py --help` answers at once.
"""

import argparse
import difflib
import json
import typing
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NoReturn

from config.defaults import GROUPS, describe_default
from config.errors import UserError
from config.settings import Settings

PRESETS = Path(__file__).resolve().with_name("presets")
ASKING = {"logdir", "data_dir", "device"}
# What may change when a run is resumed; anything else would make it another run.
CHANGEABLE = {"epochs", "data_dir", "device", "threads", "quiet", "profile"}


@dataclass
class Request:
    """A parsed command line: the settings, which of them were given as flags, and what else is asked for."""

    settings: Settings
    given: dict[str, object]
    resume: Path | None = None
    recommend: str | None = None
    as_json: bool = False


def parse(argv: list[str] | None = None) -> Request:
    """Read the command line.

    Raises:
        UserError: a value is out of range or the --config file is wrong. (argparse itself ends the program with code 2
            on an unknown flag or a wrong type.)
    """
    parser = _make_parser()
    given = vars(parser.parse_args(argv))
    actions = {name: given.pop(name) for name in ("resume", "recommend", "json", "config", "preset")}
    if actions["resume"] is not None and actions["recommend"] is not None:
        raise UserError("--resume goes on training and --recommend asks a trained run: give one of them")
    if actions["json"] and actions["recommend"] is None:
        raise UserError("--json prints the answer to --recommend USER, which is missing")
    for action in ("resume", "recommend"):
        for source in ("config", "preset"):
            if actions[action] is not None and actions[source] is not None:
                raise UserError(f"--{action} takes the settings of its run: leave out --{source}")
    if actions["preset"] is not None:
        if actions["config"] is not None:
            raise UserError("--preset and --config are two sources of settings: give one or the other")
        actions["config"] = find_preset(actions["preset"])
    if actions["recommend"] is not None and (idle := set(given) - ASKING):
        raise UserError(
            f"--{min(idle)} means nothing to a trained run; --recommend takes --logdir, --data_dir and --device"
        )
    if actions["resume"] is not None and (fixed := set(given) - CHANGEABLE):
        changeable = ", ".join(f"--{name}" for name in sorted(CHANGEABLE))
        raise UserError(f"--{min(fixed)} cannot change in a resumed run; --resume takes only {changeable}")
    from_file = read_settings_file(Path(actions["config"])) if actions["config"] is not None else {}
    return Request(
        Settings(**from_file | given),
        given,
        Path(actions["resume"]) if actions["resume"] is not None else None,
        actions["recommend"],
        actions["json"],
    )


def find_preset(name: str) -> Path:
    """Raises UserError where there is no preset of this name."""
    known = {path.stem: path for path in sorted(PRESETS.glob("*.json"))}
    if name not in known:
        raise UserError(f"there is no preset {name!r}{_suggest(name, known)}: choose one of {', '.join(known)}")
    return known[name]


def read_settings_file(path: Path) -> dict[str, object]:
    """Settings from a JSON file: an object of flag names and values, or the config.json of a run.

    Raises:
        UserError: no such file, not JSON, an unknown name or a value of the wrong type.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {error}") from None
    values = content.get("settings", content) if isinstance(content, dict) else content
    return checked(values, str(path))


def checked(values: object, source: str) -> dict[str, object]:
    """The values themselves, if they are settings by name and type.

    Raises:
        UserError: naming `source` and the first value that is wrong.
    """
    if not isinstance(values, dict):
        raise UserError(f"{source} should hold an object of flag names and values")
    kinds = typing.get_type_hints(Settings)
    for name, value in values.items():
        if name not in kinds:
            raise UserError(f"{source}: unknown setting {name!r}{_suggest(name, kinds)}")
        argument = Settings.__dataclass_fields__[name].metadata["argument"]
        count = argument.get("nargs")
        if not _fits(value, kinds[name]) or (isinstance(count, int) and value is not None and len(value) != count):
            raise UserError(f"{source}: {name} cannot be {value!r}")
        choices = argument.get("choices")
        given = value if isinstance(value, list) else [value]
        if choices and value is not None and not set(given) <= set(choices):
            raise UserError(f"{source}: {name} cannot be {value!r}; choose one of {', '.join(choices)}")
    return values


class _Parser(argparse.ArgumentParser):
    """argparse, but a mistake is answered by one sentence and not by the whole usage."""

    def error(self, message: str) -> NoReturn:
        unknown = message.partition("unrecognized arguments: ")[2].split()
        if unknown:
            message = f"unknown flag {unknown[0]}{_suggest(unknown[0].split('=')[0], self._option_string_actions)}"
        raise UserError(f"{message} (--help lists all flags)")


def _make_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="main.py",
        description="Train one network for several tasks: which movies a user watches, and how they like them.",
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=34, width=118),
        allow_abbrev=False,
    )
    groups = {name: parser.add_argument_group(name) for name in GROUPS}
    defaults = Settings()
    for setting in fields(Settings):
        _add_flag(groups[setting.metadata["group"]], setting, getattr(defaults, setting.name))
    asked = parser.add_argument_group("other things to do")
    asked.add_argument("--resume", metavar="RUN", help="go on with the run in this folder, as if it had never stopped")
    asked.add_argument(
        "--recommend", metavar="USER", help="ten films for a user (raw id), from the run --logdir or the newest one"
    )
    asked.add_argument("--json", action="store_true", help="with --recommend: answer in JSON")
    asked.add_argument(
        "--config", metavar="FILE", help="settings from a JSON file, such as a run's config.json; flags win over it"
    )
    asked.add_argument("--preset", metavar="NAME", help="settings under a name, from presets/; flags win over it")
    return parser


def _add_flag(group, setting, fixed: object) -> None:
    kind = typing.get_type_hints(Settings)[setting.name]
    text, argument = setting.metadata["help"], setting.metadata["argument"]
    default = describe_default(setting.name, fixed)
    if _scalar_type(kind) is bool:
        group.add_argument(f"--{setting.name}", action="store_true", default=argparse.SUPPRESS, help=text)
        if default == "True":
            group.add_argument(
                f"--no_{setting.name}", dest=setting.name, action="store_false", default=argparse.SUPPRESS,
                help=f"the opposite of --{setting.name}, which is the default",
            )  # fmt: skip
        return
    if default is not None:
        text += f" (default: {default})"
    group.add_argument(f"--{setting.name}", type=_scalar_type(kind), default=argparse.SUPPRESS, help=text, **argument)


def _scalar_type(kind) -> type:
    """The type of one value: int for int, int | None, list[int] and list[int] | None."""
    while typing.get_args(kind):
        kind = typing.get_args(kind)[0]
    return kind


def _fits(value: object, kind) -> bool:
    if type(None) in typing.get_args(kind) and value is None:
        return True
    scalar = _scalar_type(kind)
    if "list" in str(kind):
        return isinstance(value, list) and len(value) > 0 and all(_fits(entry, scalar) for entry in value)
    if isinstance(value, bool) or scalar is bool:
        return isinstance(value, bool) and scalar is bool
    if isinstance(value, int) and abs(value) > 2**63:
        return False
    return isinstance(value, (int, float) if scalar is float else scalar)


def _suggest(name: str, known) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""
