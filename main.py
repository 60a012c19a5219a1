"""Train one network for two tasks, which movies a user watches and what score they give, or ask a trained one.

    python main.py                                          train on MovieLens 100K
    python main.py --model mmoe                             train a network of the zoo, on views and likes
    python main.py --resume run/NAME                        go on with a run
    python main.py --recommend 196                          ten films for a user
    python main.py --recommend all --output top.csv         and for every user
    torchrun --standalone --nproc_per_node 2 main.py        train in two processes

`python main.py --help` lists the flags. Nothing heavy is imported before they are read.
"""

if __name__ == "__main__":
    # Ctrl-C in the first seconds ends the program at once: raised inside an import, it might be swallowed there.
    import signal

    signal.signal(signal.SIGINT, signal.SIG_DFL)

import signal
import sys

from config import asking, cli
from config.errors import EXIT_INTERRUPTED, EXIT_OK
from registry import CHOICES, MODELS, recipe_for
from training.console import log, run_command, silent


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code: 0 done, 2 an error that the user can fix, 130 ended by Ctrl-C."""
    arguments = sys.argv[1:] if argv is None else argv
    return run_command("main.py", lambda: run(arguments), with_traceback="--traceback" in arguments)


def run(argv: list[str]) -> int:
    if asking.is_question(argv):
        question = asking.parse(argv, MODELS)
        from serving.command import answer

        return answer(question)
    request = cli.parse(argv, MODELS, CHOICES)
    from training.process_group import distributed

    with distributed() as group:
        return train(request, group)


def train(request: cli.Request, group) -> int:
    """One run from its config to its report. Of several processes, the first prints and writes."""
    import torch

    from training import session
    from training.data_parallel import follow, release_followers
    from training.interrupts import CtrlC
    from training.loop import fit
    from training.report import header, profile, report
    from training.terminal import terminal_width

    signal.signal(signal.SIGINT, signal.default_int_handler)
    with session.begin(request, group, MODELS, CHOICES) as (run_folder, record, config):
        recipe = recipe_for(config)
        recipe.check_processes(config, group.world_size)
        torch.set_num_threads(config.threads)
        device, data, seconds = group.local_rank_zero_first(
            lambda: session.load(config, recipe, record, group, run_folder)
        )
        group.require_same(f"{data!r} ({data.fingerprint[:8]})", "the processes have read different data")
        config = recipe.resolve(session.pin(config, data, device), data, log)
        training = recipe.build(config, data, device, group)
        with CtrlC() as ctrl_c:
            if not group.is_main:
                return follow(training, config, device, ctrl_c.pressed)
            assert run_folder is not None  # rank 0 has one
            width = terminal_width(sys.stdout)
            log(*header(training, data, config, device, group.world_size, run_folder.path, width))
            with release_followers(group):
                run_folder.write_config(session.describe(config, record, data))
                run_folder.write_data(data.pack())
                outcome = fit(training, config, run_folder, device, silent if config.quiet else log, ctrl_c.pressed)
                run_folder.write_result(session.summarize(outcome, training.model, device, group.world_size))
        log(*report(outcome, training.task, run_folder.path, config, terminal_width(sys.stdout)))
        if config.profile:
            log(profile({"reading": seconds} | outcome.seconds, outcome.epochs_run))
        return EXIT_INTERRUPTED if outcome.ending == "interrupted" else EXIT_OK


if __name__ == "__main__":
    code = main()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # everything is printed and written
    sys.exit(code)
