"""The error that users see as one sentence."""


class UserError(Exception):
    """Something the user can fix. The message is one sentence: what is wrong, where, and what to do.

    main.py prints it without a traceback and exits with code 2.
    """
