"""Attacks on the project: what must not lose, mix or leak anything is tried again and again, from a seed.

    python -m tests.attacks                    the short form, about three minutes
    python -m tests.attacks --minutes 30       the long form: as many cases as begin in that time
    python -m tests.attacks --only kills       one kind of attack
    python -m tests.attacks --only kills --seed 3 --case 17      one case again

It prints each failure with the command that repeats it, and at the end a table of what was tried and what failed. The
moments at which a process is killed or stopped are drawn from the seed in seconds, so what they hit varies a little.
Needs Linux. The exit code is 1 if a case failed.
"""

import argparse
import os
import sys

from tests.attacks import all_attacks
from tests.attacks.programs import import_everything
from tests.attacks.runner import Attack, Outcome, run_attack, table


def main() -> int:
    options = parse(sys.argv[1:])
    attacks = [attack for attack in all_attacks.ATTACKS if options.only in (None, attack.name)]
    import_everything()
    total = sum(attack.share for attack in attacks)
    outcomes: list[Outcome] = []
    try:
        for attack in attacks:
            outcomes.append(run_one(attack, options, total))
            print(f"{attack.name}: {outcomes[-1].tried:,} cases, {len(outcomes[-1].failures)} failed", flush=True)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
    print("", table(outcomes), sep="\n")
    if options.minutes is not None:
        for outcome in outcomes:
            if outcome.reached < outcome.attack.least:
                print(f"{outcome.attack.name}: {outcome.reached} {outcome.attack.goal}, fewer than "
                      f"{outcome.attack.least}: give more --minutes")  # fmt: skip
    return int(any(outcome.failures for outcome in outcomes))


def run_one(attack: Attack, options: argparse.Namespace, total: float) -> Outcome:
    """One attack within its part of the time, or with its number of cases."""
    if options.case is not None:
        return run_attack(attack, options.seed, 1, cases=range(options.case, options.case + 1))
    if options.minutes is not None:
        return run_attack(attack, options.seed, options.jobs, seconds=60 * options.minutes * attack.share / total)
    return run_attack(attack, options.seed, options.jobs, cases=range(options.cases or attack.short))


def parse(argv: list[str]) -> argparse.Namespace:
    names = [attack.name for attack in all_attacks.ATTACKS]
    parser = argparse.ArgumentParser(prog="python -m tests.attacks", description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, metavar="M", help="the long form: divide this time among the attacks")
    parser.add_argument("--only", choices=names, metavar="NAME", help=f"one of {', '.join(names)}")
    parser.add_argument(
        "--cases", type=int, metavar="N", help="cases of each attack (default: those of the short form)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="decides what is tried (default: 0)")
    parser.add_argument("--case", type=int, metavar="N", help="with --only: this case alone")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="cases at a time (default: processors)"
    )
    options = parser.parse_args(argv)
    if options.case is not None and options.only is None:
        parser.error("--case goes with --only NAME")
    return options


if __name__ == "__main__":
    sys.exit(main())
