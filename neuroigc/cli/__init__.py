"""The command line: the only room that composes the others, and the only one that prints."""


def main(arguments=None):
    """Entry point of the ``neuroigc`` command; returns the exit status."""
    from neuroigc.cli.commands import run

    return run(arguments)
