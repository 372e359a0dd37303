"""Arguments, exit status and messages of the ``neuroigc`` command."""

from __future__ import annotations

import argparse
import errno
import os
import re
import sys
import traceback
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import neuroigc
from neuroigc._validation import InputError
from neuroigc.cli.processes import first_of_many, is_one_of_many, is_silent

__all__ = ["run"]

DONE, FAULT, BAD_INPUT = 0, 1, 2
# What the machine refuses: no space left, no permission, a read-only disk, a quota.
ENVIRONMENT_ERRORS = {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EACCES, errno.EPERM, errno.EROFS,
}  # fmt: skip


def run(arguments=None):
    """Parse ``arguments``, do what they say and return the exit status."""
    if not is_silent():
        return _parse_and_do(arguments)
    # Of processes side by side, only the first speaks; but a fault shows itself.
    errors = sys.stderr
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        try:
            return _parse_and_do(arguments)
        except Exception:  # noqa: BLE001 - the last line of defence, and it shows everything
            traceback.print_exc(file=errors)
            return FAULT


def _parse_and_do(arguments):
    parser = _parser()
    try:
        options = parser.parse_args(arguments)
    except SystemExit as stop:  # argparse has already said why
        return BAD_INPUT if stop.code else DONE
    if not (is_one_of_many() and options.action in _SHARED) or getattr(options, "shard", None):
        # What cannot be shared is done by one of the processes.
        return DONE if is_silent() else _do(options)
    with first_of_many() as is_first:
        return _do(options) if is_first else DONE


def _do(options):
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
    verify.add_argument(
        "dataset",
        metavar="DATASET",
        help="name of a manifest, such as nsd; arrays, or prepared, a study's folder",
    )
    verify.add_argument("root", metavar="ROOT", type=Path, help="folder that holds the data")
    verify.add_argument(
        "--deep", action="store_true", help="read everything: checksums, numbers not finite"
    )
    verify.add_argument("--study", metavar="STUDY.toml", type=Path, help="what this study needs")
    verify.add_argument("--subjects", metavar="S", nargs="+", help="only these, such as 1 2")
    verify.add_argument(
        "--sessions", metavar="N", type=int, help="the first N sessions; else a subject's all"
    )
    verify.add_argument("--space", help="surface of the betas, such as fsaverage")
    verify.add_argument("--beta-version", metavar="NAME", help="folder of the betas")
    verify.add_argument("--quiet", action="store_true", help="show no progress")
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
    stages["attribute"].add_argument(
        "--shard",
        metavar="i/n",
        help="do one of n shares, as a job of an array; `neuroigc merge` adds them up. Takes as "
        "many gradients as max_gradients says, else 64",
    )
    merge = commands.add_parser("merge", help="stage 3, last step: add up all shards")
    merge.add_argument("folder", metavar="DIR", type=Path, help="the study folder")
    merge.set_defaults(action=_merge)
    stages["merge"] = merge
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
    if options.resume and not options.quiet and folder.record("prepare"):
        if folder.is_done("prepare"):
            print("prepare: done before, with these settings; nothing is done again")
        elif folder.record("prepare").get("key") != folder.key:
            print("prepare: begun with other settings or another version; all is done again")
    if not (options.resume and folder.is_done("prepare")):
        run_stage(folder, "prepare", progress=not options.quiet)


def _stage(options):
    from neuroigc.cli.folder import StudyFolder
    from neuroigc.cli.stages import run_shard, run_stage

    folder, progress = StudyFolder.open(options.folder), not options.quiet
    if getattr(options, "shard", None) is None:
        run_stage(folder, options.stage, progress=progress)
    else:
        run_shard(folder, *_shard(options.shard), progress=progress)


def _shard(text):
    """Return the two numbers of i/n."""
    match = re.fullmatch(r"([1-9][0-9]{0,5})/([1-9][0-9]{0,5})", text)
    if not match or int(match[1]) > int(match[2]):
        raise InputError(
            "--shard", expected="i/n, number i of n from 1 on, such as 2/8", got=repr(text)
        )
    if is_one_of_many():
        raise InputError(
            "--shard",
            expected="a process by itself",
            got="one of several under torchrun",
            fix="Use either way to share the work, not both.",
        )
    return int(match[1]), int(match[2])


def _merge(options):
    from neuroigc.cli.folder import StudyFolder
    from neuroigc.cli.stages import merge

    merge(StudyFolder.open(options.folder), progress=not options.quiet)


def _verify(options):
    from neuroigc.cli.verification import verify_and_print

    return DONE if verify_and_print(options) else BAD_INPUT


def _say_where(folder):
    print(f"report: {folder.path / 'report.html'}")


# What processes side by side do together; a stage without attributions is the first one's.
_SHARED = (_demo, _run, _stage)
