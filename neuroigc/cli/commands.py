"""Arguments, exit status and messages of the ``neuroigc`` command."""

from __future__ import annotations

import argparse
import errno
import sys
import traceback
from pathlib import Path

import neuroigc
from neuroigc._validation import InputError

__all__ = ["run"]

DONE, FAULT, BAD_INPUT = 0, 1, 2
# What the machine refuses: no space left, no permission, a read-only disk, a quota.
ENVIRONMENT_ERRORS = {errno.ENOSPC, errno.EACCES, errno.EPERM, errno.EROFS, errno.EDQUOT}


def run(arguments=None):
    """Parse ``arguments``, do what they say and return the exit status."""
    parser = _parser()
    try:
        options = parser.parse_args(arguments)
    except SystemExit as stop:  # argparse has already said why
        return BAD_INPUT if stop.code else DONE
    try:
        return options.action(options) or DONE
    except InputError as error:
        print(f"neuroigc: {error}", file=sys.stderr)
        return BAD_INPUT
    except OSError as error:
        if error.errno not in ENVIRONMENT_ERRORS:
            return _fault()
        print(
            f"neuroigc: {error.strerror}: {error.filename or 'the output folder'}", file=sys.stderr
        )
        return BAD_INPUT
    except KeyboardInterrupt:
        print("neuroigc: interrupted; --resume goes on from here", file=sys.stderr)
        return BAD_INPUT
    except Exception:  # noqa: BLE001 - the last line of defence, and it shows everything
        return _fault()


def _fault():
    traceback.print_exc()
    print("neuroigc: this is a fault of neuroigc; please report it", file=sys.stderr)
    return FAULT


def _parser():
    parser = argparse.ArgumentParser(
        prog="neuroigc",
        description="Which part of the brain, or of the image, carries what.",
    )
    parser.add_argument("--version", action="version", version=f"neuroigc {neuroigc.__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", help="a whole study on simulated data, a few minutes")
    demo.set_defaults(action=_demo)

    whole = commands.add_parser("run", help="a whole study on your data")
    whole.set_defaults(action=_run)

    verify = commands.add_parser("verify", help="is what lies there what the manifest says?")
    verify.add_argument("dataset", metavar="DATASET", help="name of a manifest, such as nsd")
    verify.add_argument("root", metavar="ROOT", type=Path, help="folder that holds the data")
    verify.add_argument("--deep", action="store_true", help="also compare checksums")
    verify.set_defaults(action=_verify)

    prepare = commands.add_parser("prepare", help="stage 1: files → responses and features")
    prepare.set_defaults(action=_prepare)
    for command in (whole, prepare):
        command.add_argument("study", metavar="STUDY.toml", type=Path)
    for command in (demo, whole, prepare):
        command.add_argument("--out", metavar="DIR", type=Path, required=True)
        command.add_argument(
            "--resume", action="store_true", help="go on in DIR where an earlier run stopped"
        )

    stages = {
        "train": "stage 2: responses → networks",
        "attribute": "stage 3: networks → integrated gradient correlation",
        "roi": "stage 4: attributions → region table and surface maps",
        "prf": "stage 5: encoder maps → population receptive fields",
        "report": "stage 6: study folder → report.html",
    }
    for name, text in stages.items():
        stage = commands.add_parser(name, help=text)
        stage.add_argument("folder", metavar="DIR", type=Path, help="the study folder")
        stage.set_defaults(action=_stage, stage=name)
        stages[name] = stage
    for command in (demo, whole, prepare, *stages.values()):
        command.add_argument("--quiet", action="store_true", help="show no progress")
    return parser


def _demo(options):
    from neuroigc.cli.demo import start_demo
    from neuroigc.cli.stages import run_stages

    folder = start_demo(options.out, resume=options.resume, progress=not options.quiet)
    run_stages(folder, resume=options.resume, progress=not options.quiet)
    _say_where(folder)


def _run(options):
    from neuroigc.cli.config import load_config
    from neuroigc.cli.folder import StudyFolder
    from neuroigc.cli.stages import run_stages

    folder = StudyFolder.create(options.out, load_config(options.study), resume=options.resume)
    run_stages(folder, resume=options.resume, progress=not options.quiet)
    _say_where(folder)


def _prepare(options):
    from neuroigc.cli.config import load_config
    from neuroigc.cli.folder import StudyFolder
    from neuroigc.cli.stages import run_stage

    folder = StudyFolder.create(options.out, load_config(options.study), resume=options.resume)
    run_stage(folder, "prepare", progress=not options.quiet)


def _stage(options):
    from neuroigc.cli.folder import StudyFolder
    from neuroigc.cli.stages import run_stage

    run_stage(StudyFolder.open(options.folder), options.stage, progress=not options.quiet)


def _verify(options):
    from neuroigc.datasets.manifest import verify

    statuses = verify(options.dataset, options.root, deep=options.deep)
    for status in statuses:
        print(f"{status.state:<10}  {status.path}  {status.detail}".rstrip())
    counts = {}
    for status in statuses:
        counts[status.state] = counts.get(status.state, 0) + 1
    print(", ".join(f"{number} {state}" for state, number in sorted(counts.items())))
    return DONE if set(counts) <= {"ok", "unverified"} else BAD_INPUT


def _say_where(folder):
    print(f"report: {folder.path / 'report.html'}")
