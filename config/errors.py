"""The one error that users are meant to see."""


class UserError(Exception):
    """Something the user can mend: what was wrong, where, and what to do, in one sentence.

    main.py prints the sentence without a traceback and ends with exit code 2.
    """
