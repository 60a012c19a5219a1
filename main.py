"""Train one network for two tasks, which movies a user watches and what score they give, or ask a trained one.

    python main.py                                          train on MovieLens 100K
    python main.py --model mmoe                             train a network of the zoo, on views and likes
    python main.py --resume run/NAME                        go on with a run
    python main.py --recommend 196                          ten films for a user
    torchrun --standalone --nproc_per_node 2 main.py        train in two processes

`python main.py --help` lists all flags. Nothing heavy is imported before the flags are read.
"""

if __name__ == "__main__":
    # Ctrl-C in the first seconds ends the program at once: raised inside an import, it might be swallowed there.
    import signal

    signal.signal(signal.SIGINT, signal.SIG_DFL)

import itertools
import json
import os
import platform
import shlex
import signal
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

from config.cli import Request, checked, parse
from config.errors import UserError
from config.settings import Settings
from training.local_rank import is_local_main

RUNS = Path("run")
SIDE_BY_SIDE = "the labels are learnt side by side (--chain none): of none is another a condition"


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code: 0 done, 2 something the user can mend, 130 ended by Ctrl-C."""
    sys.stdout.reconfigure(errors="backslashreplace")  # titles in a terminal that knows ASCII alone
    try:
        request = parse(argv)
        if request.recommend is not None:
            return answer(request)
        from training.process_group import distributed

        with distributed() as group:
            return train(request, group)
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except NotImplementedError as error:  # the starter's models.py raises it
        return refuse(f"models.py is not finished: {error}")
    except MemoryError:
        return refuse("there is not enough memory for this network, batch or data set")
    except (UserError, OSError) as error:
        return refuse(str(error))
    except KeyboardInterrupt:
        if is_local_main():
            print("main.py: stopped", file=sys.stderr)
        return 130


def refuse(sentence: str) -> int:
    if is_local_main():
        print(f"main.py: error: {sentence}", file=sys.stderr)
        if summary := os.environ.get("TORCHELASTIC_ERROR_FILE"):  # torchrun ends its own words with it
            about = {"py_callstack": sentence, "timestamp": str(int(time.time()))}
            Path(summary).write_text(json.dumps({"message": {"message": sentence, "extraInfo": about}}))
    return 2


def train(request: Request, group) -> int:
    """One run from settings to report. Of several processes the first does all that is seen."""
    import torch

    import registry as family
    from training.data_parallel import release_followers
    from training.loop import fit
    from training.report import BOX, profile, report

    signal.signal(signal.SIGINT, signal.default_int_handler)
    run, config, settings = begin(request, group)
    family.require_shareable(settings, group)
    torch.set_num_threads(settings.threads)
    start = time.perf_counter()
    device, data = group.local_rank_zero_first(lambda: (choose_device(settings, group), load_data(settings, config)))
    group.require_same(f"{data!r} ({data.fingerprint[:8]})", "the processes have read different data")
    seconds = {"reading": time.perf_counter() - start}
    settings = family.settle(pin_down(settings, data, device), data, say)
    model, task, make_stepper = family.build(settings, data, device, group)
    if not group.is_main:
        with CtrlC() as ctrl_c:
            return 130 if make_stepper(model, task, settings, device).follow(ctrl_c.pressed) else 0
    if data.simulated:
        print(BOX)
    for note in (*data.notes, *([SIDE_BY_SIDE] if settings.chain == "none" else [])):
        print(f"note: {note}")
    parameters = sum(parameter.numel() for parameter in model.parameters())
    where = f"{device}, {settings.threads} threads" + (
        f", {group.world_size} processes" if group.world_size > 1 else ""
    )
    print(f"{data}\n{parameters:,} parameters, {where}, run folder {run.path}", flush=True)
    with release_followers(group), CtrlC() as ctrl_c:
        run.write_config({"command": command_line()} | config | {"settings": asdict(settings)} | describe(data))
        tell = silence if settings.quiet else say
        outcome = fit(model, task, settings, run, device, tell, ctrl_c.pressed, make_stepper)
        run.write_result(summarise(outcome, parameters, device) | {"processes": group.world_size})
        print(report(outcome, task, run.path, settings), flush=True)
    if settings.profile:
        print(profile(seconds | outcome.seconds, outcome.epochs_run))
    return 130 if outcome.ending == "interrupted" else 0


def begin(request: Request, group):
    """The run folder, which the first process alone has, its config so far and the settings, which are one for all."""
    from training.run_folder import RunFolder

    run, config, settings = None, {}, request.settings
    with group.collective_errors():
        if group.is_main and request.resume is not None:
            run, config, settings = reopen(request.resume, request.given)
        elif group.is_main:
            run = RunFolder.new(Path(settings.logdir) if settings.logdir is not None else unused_name(settings))
    config, values = group.broadcast((config, asdict(settings)))
    return run, config, Settings(**values)


class CtrlC:
    """While it is entered, Ctrl-C is noted and not raised: a run ends between two steps and never within a file.

    The third one ends the program at once; even then the run folder holds the last finished epoch.
    """

    def __enter__(self) -> "CtrlC":
        self.times = 0
        self.before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *_) -> None:
        signal.signal(signal.SIGINT, self.before)

    def pressed(self) -> bool:
        return self.times > 0

    def _note(self, *_) -> None:
        self.times += 1
        if self.times == 1 and is_local_main():
            os.write(2, b"\nstopping at the last finished epoch\n")
        if self.times == 3:
            os._exit(130)


def answer(request: Request) -> int:
    """--recommend: ask a trained run."""
    import registry as family
    from training.process_group import SINGLE_PROCESS
    from training.recommend import as_text, recommend
    from training.report import BOX

    path = Path(request.settings.logdir) if request.settings.logdir is not None else newest_run()
    given = {name: request.given[name] for name in ("data_dir", "device") if name in request.given}
    run, config, settings = reopen(path, given)
    if settings.model == "dyadic":
        raise UserError(f"{path} is a run of the dyadic learner, which scores observed dyads only; ask another run")
    device = choose_device(settings, SINGLE_PROCESS)
    data = load_data(settings, config)
    model, task, _ = family.build(settings, data, device)
    model.eval()
    name = "best" if run.has("best") else "last"
    run.restore(name, device, {"model": model})
    found = recommend(model, task, request.recommend)
    if request.as_json:
        print(json.dumps({"run": str(run.path), "checkpoint": name, "simulated": data.simulated} | found, indent=2))
    else:
        print(*([BOX] if data.simulated else []), f"{run.path}, {name} epoch\n", as_text(found), sep="\n")
    return 0


def reopen(path: Path, given: dict[str, object]):
    """A run that exists: its folder, its config, and its settings with those that are given now."""
    from training.run_folder import RunFolder

    run = RunFolder.open(path)
    config = run.read_config()
    before = checked(config["settings"], str(path / "config.json"))
    if before.get("schedule") == "cosine" and given.get("epochs", before["epochs"]) != before["epochs"]:
        raise UserError(
            f"{path} has --schedule cosine, which ends with its last epoch: it keeps --epochs {before['epochs']}"
        )
    return run, config, Settings(**before | given)


def unused_name(settings: Settings) -> Path:
    """A folder under run/ named by the tasks, with a number behind it where that name is taken."""
    name = settings.run_name
    numbered = (RUNS / f"{name}-{number}" for number in itertools.count(2))
    return next(path for path in itertools.chain([RUNS / name], numbered) if not path.exists())


def newest_run() -> Path:
    checkpoints = sorted(RUNS.rglob("last.pt"), key=lambda path: path.stat().st_mtime)
    if not checkpoints:
        raise UserError(
            f"there is no trained run under {RUNS}/: train one by python main.py, or name its folder with --logdir"
        )
    return checkpoints[-1].parent


def choose_device(settings: Settings, group):
    import torch

    usable = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if settings.device == "auto":
        return group.device(next(name for name in ("cuda", "mps", "cpu") if usable[name]))
    if not usable[settings.device]:
        raise UserError(f"--device {settings.device}: PyTorch finds none here; --device auto takes what there is")
    return group.device(settings.device)


def load_data(settings: Settings, config: dict):
    """The data of these settings; for a run that exists already, the very same data as then."""
    import registry as family

    data = family.load_data(settings)
    if config and config["data"].get("fingerprint") != data.fingerprint:
        summary = config["data"].get("summary")
        raise UserError(f"the data are not those of the run, {summary}: the ratings or their split have changed")
    return data


def pin_down(settings: Settings, data, device) -> Settings:
    """Settings that mean the same when the run is resumed elsewhere, or when the network is back."""
    own_files = {
        name: str(Path(getattr(settings, name)).resolve())
        for name in ("ratings", "train_ratings", "test_ratings", "feedback")
        if getattr(settings, name) is not None
    }
    dataset = settings.dataset if own_files else data.name
    data_dir = settings.data_dir and str(Path(settings.data_dir).resolve())
    return replace(settings, dataset=dataset, data_dir=data_dir, device=device.type, **own_files)


def command_line() -> str:
    return shlex.join(["python", *sys.argv])


def describe(data) -> dict:
    """What config.json says of the data and of the software."""
    import numpy
    import torch

    about = {"name": data.name, "simulated": data.simulated, "summary": repr(data), "notes": list(data.notes)}
    versions = {"python": platform.python_version(), "torch": torch.__version__, "numpy": numpy.__version__}
    return {"data": about | {"fingerprint": data.fingerprint}, "versions": versions}


def summarise(outcome, parameters: int, device) -> dict:
    """What result.json holds. The epoch that counts is the chosen one, and the last where nothing was chosen."""
    import torch

    memory = torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None
    return {
        "ending": outcome.ending,
        "epochs": len(outcome.history),
        "metrics": outcome.history[(outcome.best_epoch or 0) - 1] if outcome.history else {},
        "parameters": parameters,
        "seconds": outcome.seconds,
        "peak_device_memory_mb": memory,
    }


def say(line: str) -> None:
    print(line, flush=True)


def silence(line: str) -> None:
    pass


if __name__ == "__main__":
    code = main()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is said and written
    sys.exit(code)
