"""Exceptions that say how a command ended; light, so that the command line can catch them without importing torch."""


class Stopped(KeyboardInterrupt):
    """SIGINT or SIGTERM stopped a training, which is saved; the text says how to go on, "" where another process says it.

    A `KeyboardInterrupt`, so that `except Exception` lets it pass. The command line ends with exit code 0.
    """


class ElsewhereError(RuntimeError):
    """Another process of the same training failed and says why. The command line ends with exit code 2 and adds nothing."""
