"""The command line of main.py: flags, settings files and presets become a config.

To add a flag, add a field to a config class: in config/multitask.py, zoo.py or dyadic.py, or in base.py if every model
has it. The model comes first on the command line: it decides which other flags there are. Imports the standard library
alone, so that `python main.py --help` answers at once, also before the requirements are installed.
"""

import argparse
import dataclasses
import difflib
import json
import sys
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from config.base import Option, RunConfig
from config.errors import UserError
from config.parts import missing
from config.reading import read_text
from config.text import require_text

PRESETS = Path(__file__).resolve().with_name("presets")
FORMAT = 2  # of config.json; a change that older files do not survive raises it
ACTIONS = ("help", "resume", "config", "preset")
QUESTIONS = {
    "--recommend": ("USER ..", "items for users; --recommend --help lists its flags"),
    "--predict": ("FILE", "predictions for the pairs in a file"),
    "--for": ("FILE", "items for new users, from a file of their ratings"),
}  # asked of a trained run, see config/asking.py
METAVARS = {int: "N", float: "X", str: "VALUE"}
Models = Mapping[str, type[RunConfig]]
Choices = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Request:
    """A parsed command line that trains.

    config: of a new run; None where a run is resumed, which has its own.
    given: the fields given as flags.
    resume: the run folder to go on with.
    """

    config: RunConfig | None
    given: dict[str, Any]
    resume: Path | None = None


def parse(argv: Sequence[str] | None, models: Models, choices: Choices) -> Request:
    """Read the command line.

    Args:
        models: {name: its config class}; the first is the default.
        choices: {field: its possible values} for fields whose values are listed elsewhere (data sets, weightings).

    Raises:
        UserError: a flag is unknown, does not apply to the model or has a wrong value, or the --config file is wrong.
    """
    first = vars(_first_parser(models).parse_known_args(argv)[0])
    source = _settings_source(first, models)
    from_file = read_settings_file(source, models, choices) if source is not None else {}
    in_file = from_file.pop("model", None) or _model_of_run(first["resume"], models)
    model = first["model"] or in_file or next(iter(models))
    if first["help"]:
        _make_parser(models, choices, model if first["model"] else None).print_help()
        raise SystemExit(0)
    given = vars(_make_parser(models, choices, model).parse_args(argv))
    actions = {name: given.pop(name) for name in ACTIONS}
    given = with_tuples(given)
    _check_actions(actions, given, models[model])
    given.pop("model", None)
    if actions["resume"] is not None:
        return Request(None, given, resume=Path(actions["resume"]))
    if source is not None and (foreign := set(from_file) - set(_fields(models[model]))):
        raise UserError(f"{source}: {min(foreign)} does not apply to --model {model}")
    return Request(models[model].from_values(from_file | given), given)


def with_tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a config: with tuples where argparse makes lists."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def find_preset(name: str, models: Models | None = None) -> Path:
    """Raises UserError where no preset has this name; models: those to suggest presets of, None: all."""
    path = PRESETS / f"{name}.json"
    if path.parent != PRESETS or not path.is_file():
        known = preset_names(models)
        if not known:
            raise UserError(missing(f"--preset {name}"))
        raise UserError(f"there is no preset {name!r}{_suggest(name, known)}: choose one of {', '.join(known)}")
    return path


def preset_names(models: Models | None) -> list[str]:
    """The presets of these models, by name; None: all."""
    contents = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(PRESETS.glob("*.json"))}
    return [name for name, content in contents.items() if models is None or content["model"] in models]


def read_settings_file(path: Path, models: Models, choices: Choices) -> dict[str, Any]:
    """Settings from a JSON file: an object of "model" and field names, or the config.json of a run.

    Raises:
        UserError: no such file, not JSON, an unknown name or a value of the wrong type.
    """
    try:
        content = json.loads(read_text(path))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {error}") from None
    values = content.get("settings", content) if isinstance(content, dict) else content
    return check_settings(values, str(path), models, choices)


def config_of(settings: object, source: str, models: Models, choices: Choices) -> RunConfig:
    """The config that a run's config.json holds under "settings".

    Raises:
        UserError: naming `source` and the first value that is wrong.
    """
    values = check_settings(settings, source, models, choices)
    return models[values.pop("model", next(iter(models)))].from_values(values)


def check_settings(values: object, source: str, models: Models, choices: Choices) -> dict[str, Any]:
    """The values with lists as tuples, if their names and types are those of a config.

    Raises:
        UserError: naming `source` and the first value that is wrong.
    """
    if not isinstance(values, dict):
        raise UserError(f"{source} should hold an object of flag names and values")
    model = values.get("model", next(iter(models)))
    if isinstance(model, str) and is_left_out(model, models):
        raise UserError(f"{source}: {missing(f'--model {model}')}")
    if not isinstance(model, str) or model not in models:
        raise UserError(f"{source}: model cannot be {model!r}; choose one of {', '.join(models)}")
    fields = _fields(models[model])
    kinds = typing.get_type_hints(models[model])
    checked: dict[str, Any] = {"model": model} if "model" in values else {}
    for name, value in values.items():
        if name == "model":
            continue
        if name not in fields:
            raise UserError(f"{source}: unknown setting {name!r} of --model {model}{_suggest(name, fields)}")
        known: Option = fields[name].metadata["option"]
        if not _fits(value, kinds[name]) or (value == [] and fields[name].default != ()):
            raise UserError(f"{source}: {name} cannot be {value!r}")
        allowed = choices.get(name, known.choices)
        entries = value if isinstance(value, list) else [value]
        if allowed and value is not None and not set(entries) <= set(allowed):
            raise UserError(f"{source}: {name} cannot be {value!r}; choose one of {', '.join(allowed)}")
        checked[name] = tuple(value) if isinstance(value, list) else value
    return checked


def is_left_out(name: str, models: Models) -> bool:
    """True where the project has a model of this name, and this copy of it does not."""
    return name not in models and any(name == vars(config).get("model") for config in _subclasses(RunConfig))


def _subclasses(config: type) -> Iterable[type]:
    subclass: type
    for subclass in config.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)


def _model_name(models: Models, name: str) -> str:
    """The type of --model."""
    if is_left_out(name, models):
        raise UserError(missing(f"--model {name}"))
    return name


class Parser(argparse.ArgumentParser):
    """argparse, but a mistake is answered by one sentence instead of the whole usage."""

    explain_unknown = staticmethod(lambda flag: "")

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[override]  # parse_args calls it, too
        words = sys.argv[1:] if args is None else list(args)
        for word in words:
            require_text(word, "an argument")
            if word.startswith("--") and word.endswith("=--"):  # argparse would drop the value
                raise UserError(f"{word.removesuffix('=--')} cannot be '--' (--help lists all flags)")
        return super().parse_known_args(words, namespace)

    def error(self, message: str) -> NoReturn:
        if message.startswith("argument --dataset: invalid choice"):
            message += "; a file of your own goes with --ratings, or with --feedback where it holds labels of 0 and 1"
        unknown = message.partition("unrecognized arguments: ")[2].split()
        if unknown:
            flag = unknown[0].split("=")[0]
            reason = self.explain_unknown(flag)
            message = reason or f"unknown flag {unknown[0]}{_suggest(flag, self._option_string_actions)}"
        raise UserError(f"{message} (--help lists all flags)")


def _first_parser(models: Models) -> Parser:
    """Reads what decides which flags there are."""
    parser = Parser(prog="main.py", add_help=False, allow_abbrev=False)
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("--model", type=partial(_model_name, models), choices=tuple(models))
    for name in ("config", "preset", "resume"):
        parser.add_argument(f"--{name}")
    return parser


def _settings_source(first: Mapping[str, Any], models: Models) -> Path | None:
    """The settings file that --config or --preset names."""
    if first["preset"] is not None and first["config"] is not None:
        raise UserError("--preset and --config are two sources of settings: give one or the other")
    for source in ("config", "preset"):
        if first["resume"] is not None and first[source] is not None:
            raise UserError(f"--resume takes the settings of its run: leave out --{source}")
    if first["preset"] is not None:
        return find_preset(first["preset"], models)
    return Path(first["config"]) if first["config"] is not None else None


def _model_of_run(path: str | None, models: Models) -> str | None:
    """The model of a run that is to be resumed; None where its config.json cannot tell, which is reported later."""
    try:
        content = json.loads(read_text(Path(path) / "config.json")) if path else {}
        model = content["settings"]["model"]
        return model if model in models else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError, UserError):
        return None


def _check_actions(actions: Mapping[str, Any], given: Mapping[str, Any], config: type[RunConfig]) -> None:
    resumable = {name for name, field in _fields(config).items() if field.metadata["option"].resumable}
    if actions["resume"] is not None and (fixed := set(given) - resumable):
        changeable = ", ".join(f"--{name}" for name in sorted(resumable))
        raise UserError(f"--{min(fixed)} cannot change in a resumed run; --resume takes only {changeable}")


def _make_parser(models: Models, choices: Choices, model: str | None) -> Parser:
    """The parser of one model; None: of what all models share."""
    parser = Parser(
        prog="main.py",
        usage="main.py [--model NAME] [flags]",
        description="Train one network for several tasks: what users watch, and how they like it.",
        epilog=None if model else _describe_models(models),
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=26),
        add_help=False,
        allow_abbrev=False,
    )
    parser.explain_unknown = lambda flag: _explain_foreign_flag(flag, models, model)  # type: ignore[method-assign]
    shared = list(models.values()) if model is None else [models[model]]
    _add_actions(parser.add_argument_group("what to do"), models)
    fields = _fields(shared[0] if model else RunConfig)
    titles = dict.fromkeys(field.metadata["option"].group for field in fields.values())
    groups = {title: parser.add_argument_group(title) for title in sorted(titles, key=("data", "output").__contains__)}
    for name, field in fields.items():
        _add_flag(groups[field.metadata["option"].group], name, shared, choices)
    return parser


def _describe_models(models: Models) -> str:
    lines = (f"  {name:<14} {config.summary}" for name, config in models.items())
    return "\n".join(["models (--model NAME --help lists the flags of one):", *lines])


def _add_actions(group: argparse._ArgumentGroup, models: Models) -> None:
    group.add_argument("-h", "--help", action="store_true", help="show this text; with --model NAME: its flags too")
    group.add_argument(
        "--model", choices=tuple(models), metavar="NAME", default=argparse.SUPPRESS,
        help=f"network to train, see below (default: {next(iter(models))})",
    )  # fmt: skip
    group.add_argument("--resume", metavar="RUN", help="go on with the run in this folder")
    for flag, text in QUESTIONS.items():  # these are read by config/asking.py
        group.add_argument(flag, metavar=text[0], help=text[1], default=argparse.SUPPRESS)
    group.add_argument("--config", metavar="FILE", help="settings from a JSON file, as a run's config.json")
    presets = ", ".join(preset_names(models))
    help_text = f"settings by name: {presets}" if presets else argparse.SUPPRESS
    group.add_argument("--preset", metavar="NAME", help=help_text)


def _add_flag(group: argparse._ArgumentGroup, name: str, configs: Sequence[type[RunConfig]], choices: Choices) -> None:
    """A flag for one field, with the default that all these configs share where they do."""
    known: Option = configs[0].__dataclass_fields__[name].metadata["option"]
    kind = typing.get_type_hints(configs[0])[name]
    defaults = {config.__dataclass_fields__[name].default for config in configs}
    default = next(iter(defaults)) if len(defaults) == 1 else None
    text = known.doc.replace("%", "%%")
    if _scalar_type(kind) is bool:
        group.add_argument(f"--{name}", action="store_true", default=argparse.SUPPRESS, help=text)
        if default is True:
            group.add_argument(
                f"--no_{name}", dest=name, action="store_false", default=argparse.SUPPRESS, help=f"not --{name}"
            )
        return
    if default not in (None, ()):
        text += f" (default: {_in_words(default)})"
    elif len(defaults) > 1:
        text += " (default: by model)"
    allowed = tuple(choices.get(name, known.choices))
    if known.metavar == "NAME" and allowed:
        text += f"; one of {', '.join(allowed)}"
    group.add_argument(
        f"--{name}", type=_scalar_type(kind), default=argparse.SUPPRESS, help=text, nargs=_nargs(kind),
        choices=allowed or None, metavar=known.metavar or (None if allowed else METAVARS[_scalar_type(kind)]),
    )  # fmt: skip


def _explain_foreign_flag(flag: str, models: Models, model: str | None) -> str:
    """A sentence about a flag that other models have; "" for any other."""
    name = flag.removeprefix("--").removeprefix("no_")
    if flag in ("--json", "--k", "--output"):
        return f"{flag} goes with --recommend, --predict or --for, which ask a trained run"
    owners = [other for other, config in models.items() if name in config.__dataclass_fields__]
    if not flag.startswith("--") or not owners or model is None:
        return ""
    return f"{flag} does not apply to --model {model}; it is for {', '.join(owners)}"


def _fields(config: type[RunConfig]) -> dict[str, dataclasses.Field]:
    return {field.name: field for field in dataclasses.fields(config)}


def _nargs(kind: Any) -> int | str | None:
    """How many values a flag takes: None for one, "+" for any number, else that number."""
    for part in (kind, *typing.get_args(kind)):
        if typing.get_origin(part) is tuple:
            entries = typing.get_args(part)
            return "+" if Ellipsis in entries else len(entries)
    return None


def _scalar_type(kind: Any) -> type:
    """The type of one value: int for int, int | None, tuple[int, ...] and tuple[int, ...] | None."""
    while typing.get_args(kind):
        kind = typing.get_args(kind)[0]
    return kind


def _fits(value: object, kind: Any) -> bool:
    """True where a value read from JSON has the type of a field."""
    if value is None:
        return type(None) in typing.get_args(kind)
    count, scalar = _nargs(kind), _scalar_type(kind)
    if count is not None:
        has_length = isinstance(value, list) and (count == "+" or len(value) == count)
        return has_length and all(_fits(entry, scalar) for entry in typing.cast(list, value))
    if isinstance(value, bool) or scalar is bool:
        return isinstance(value, bool) and scalar is bool
    if isinstance(value, int) and abs(value) > 2**63:
        return False
    return isinstance(value, (int, float) if scalar is float else scalar)


def _in_words(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(map(_in_words, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _suggest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""
