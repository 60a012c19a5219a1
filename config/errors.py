"""The error that users are meant to see, and the exit codes of all commands."""

EXIT_OK = 0
EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130  # as shells report a program that Ctrl-C has ended


class UserError(Exception):
    """A problem that the user can fix: one sentence that says what is wrong, where, and what to do.

    The commands print it without a traceback and exit with EXIT_USER_ERROR.
    """


class ReportedError(UserError):
    """The same, where the sentence has been printed already, by the watcher of one of several processes."""
