"""The stages of a study: each reads what earlier ones left, and leaves whole files."""

from __future__ import annotations

import sys
from functools import partial

import numpy as np

from neuroigc._validation import InputError, check_choice
from neuroigc.cli.attributions import attribute, attribute_shard_of_all, merge_shards_of_all
from neuroigc.cli.encoders import has_windows, train_encoder
from neuroigc.cli.folder import STAGES, StudyFolder
from neuroigc.cli.preparing import Before, describe_subject, write_images
from neuroigc.cli.results import load_references, write_prfs, write_rois, write_summary
from neuroigc.cli.sanity import write_sanity
from neuroigc.cli.sources import open_source
from neuroigc.cli.statistics import cortex_mesh, needs_neighbours, write_scores
from neuroigc.cli.study_data import decoding_samples, write_features
from neuroigc.datasets._design import check_were_seen

__all__ = ["merge", "run_shard", "run_stage", "run_stages"]


def run_stages(folder: StudyFolder, *, resume: bool = False, progress: bool = False) -> None:
    """Run every stage, or with ``resume`` those that are not done."""
    for number, stage in enumerate(STAGES, start=1):
        if resume and folder.is_done(stage):
            continue
        if progress:
            print(f"[{number}/{len(STAGES)}] {stage}", file=sys.stderr)
        run_stage(folder, stage, progress=progress)


def run_stage(folder: StudyFolder, stage: str, *, progress: bool = False) -> None:
    """Run one stage; the ones before it must be done."""
    _run(folder, stage, stage, _ACTIONS[stage], progress)
    if stage == STAGES[-1]:
        write_summary(folder)  # once more, now that the time of the last stage is known


def run_shard(folder: StudyFolder, number: int, size: int, *, progress: bool = False) -> None:
    """Do one of several shares of the attributions, for `merge`; others may run beside it."""
    action = partial(attribute_shard_of_all, number=number, size=size)
    _run(folder, "attribute", f"attribute-{number}of{size}", action, progress)


def merge(folder: StudyFolder, *, progress: bool = False) -> None:
    """Finish the attributions from the shares of all shards."""
    action = partial(merge_shards_of_all, size=folder.finished_shards())
    _run(folder, "attribute", "attribute", action, progress)
    folder.forget_shards()


def _run(folder, stage, name, action, progress):
    """Run a stage, or a part of it by a name of its own, and keep the record."""
    for earlier in STAGES[: STAGES.index(stage)]:
        folder.require(earlier)
    with folder.running(name) as keep:
        action(folder, keep=keep, progress=progress)


def prepare(folder, *, keep, progress):
    """Files → responses, areas, features and the encoders' images."""
    config = folder.config
    _make_decoder(config), _make_encoder(config)  # wrong settings should be told at once
    source = open_source(config)
    if config.decoding and needs_neighbours(config.decoding.map_tests):
        cortex_mesh(config.data.space)
    for subject in config.encoding.subjects if config.encoding else ():
        load_references(config, subject)
    # So should a missing area or a damaged file of the last subject, hours before its turn.
    plans = []
    for subject in config.data.subjects:
        plans.append(source.check(subject))
        _check_areas(config, subject, source.atlas(subject, config.rois))
    if not isinstance(config.data.test_images, str):
        seen = np.concatenate([plan.image_ids for plan in plans])
        check_were_seen(config.data.test_images, seen)
    for subject in config.data.subjects:
        before = Before(folder.prepared(subject))
        data = source.prepare(subject, folder.prepared(subject), keep=keep, progress=progress)
        _check_space(config, "responses", data.space)
        if progress:
            done = before.describe()
            print(describe_subject(data) + f"; {done}" * bool(done))
        for layer in source.atlas(subject, config.rois).layers:
            layer.to_gifti(folder.path / "labels", subject=subject)
    if not (keep and folder.features.exists()):
        write_features(folder, source)
    elif progress:
        print("features: kept as they were")
    if config.encoding:
        write_images(folder, source, progress=progress)


def _check_areas(config, subject, atlas):
    """Raise if areas and settings do not speak of the same surface and areas."""
    _check_space(config, "areas", atlas.space)
    if config.encoding and subject in config.encoding.subjects:
        for area in config.encoding.rois:
            check_choice("[encoding] rois", area, atlas.names)


def _check_space(config, what, space):
    if space != config.data.space:
        raise InputError(
            "[data] space", expected=f"{space}, on which the {what} lie", got=config.data.space
        )


def train(folder, *, keep, progress):
    """Responses → one decoder for all subjects, and an encoder for each that shall have one."""
    from neuroigc._team import working_alone
    from neuroigc.cli.processes import call_together

    config = folder.config
    if config.decoding and not (keep and _model_exists(folder, "decoder")):
        decoder = call_together(_fit_decoder, folder.path, progress)
        decoder.save(folder.model("decoder"))
        folder.forget_training("decoder")
    for subject in config.data.subjects if config.decoding else ():
        if not (keep and folder.scores(subject).exists()):
            write_scores(folder, subject, progress=progress)
    for subject in config.encoding.subjects if config.encoding else ():
        if not (keep and _model_exists(folder, f"encoder_sub-{subject}")):
            with working_alone():
                train_encoder(folder, subject, _make_encoder(config, progress=progress))


def _fit_decoder(path, progress):
    """Train the decoder; of processes side by side, each calls this."""
    from neuroigc.cli.processes import loading

    folder = StudyFolder.open(path)
    with loading():
        samples = decoding_samples(folder, held_out=False)
        decoder = _make_decoder(folder.config, progress=progress)
    return decoder.fit(
        samples.responses,
        samples.features,
        conditions=samples.conditions,
        sources=samples.shown,
        checkpoint=folder.training("decoder"),
    )


def _make_decoder(config, **options):
    from neuroigc.models import NeuralDecoder

    return _make(NeuralDecoder, config, config.decoding, "decoding", options)


def _make_encoder(config, **options):
    from neuroigc.models import FieldEncoder, NeuralEncoder

    kind = FieldEncoder if config.encoding and has_windows(config) else NeuralEncoder
    return _make(kind, config, config.encoding, "encoding", options)


def _make(kind, config, part, name, options):
    network = part.network if part else {}
    for key in network:
        check_choice(f"[{name}.network]", key, kind().get_params())
    return kind(**{"seed": config.seed, "device": config.device, **network, **options})


def _model_exists(folder, name):
    # The description is written after the weights.
    return folder.model(f"{name}.json").exists()


def roi(folder, *, keep, progress):
    """Attributions → table of areas, surface maps and sanity checks."""
    write_rois(folder, progress=progress)
    if folder.config.decoding and folder.config.decoding.sanity:
        write_sanity(folder, _make_decoder, keep=keep, progress=progress)


def prf(folder, *, keep, progress):  # noqa: ARG001 - every stage is called alike
    """Fit population receptive fields to the encoders' maps."""
    write_prfs(folder)


def report(folder, *, keep, progress):  # noqa: ARG001
    """Study folder → summary.json and report.html."""
    from neuroigc.reporting import write_report

    write_summary(folder)
    write_report(folder.path)


_ACTIONS = {
    "prepare": prepare,
    "train": train,
    "attribute": attribute,
    "roi": roi,
    "prf": prf,
    "report": report,
}
