"""The attributions of a study: by one process, by several side by side, or by jobs of an array."""

from __future__ import annotations

import sys

from neuroigc.cli.encoders import has_windows, map_fields, save_maps
from neuroigc.cli.folder import StudyFolder
from neuroigc.cli.results import area_groups
from neuroigc.cli.statistics import needs_neighbours
from neuroigc.cli.study_data import decoding_samples, encoding_samples

__all__ = ["SHARD_GRADIENTS", "attribute", "attribute_shard_of_all", "merge_shards_of_all"]

# Gradients per sample that shards take where the study's settings do not say: no shard can tell
# the error of the whole.
SHARD_GRADIENTS = 64


def attribute(folder, *, keep, progress):
    """Networks → integrated gradient correlation over the held-out images."""
    from neuroigc.cli.processes import call_together

    for kind, subject in _all_of(folder.config):
        path = folder.attribution(subject, kind)
        if keep and path.exists():
            continue
        if _has_windows(folder, kind):
            # All outputs at once: not worth the sharing.
            save_maps(folder, subject, map_fields(folder, subject, progress=progress))
        else:
            result = call_together(_attribute_one, folder.path, kind, subject, progress)
            result.save(path)
            folder.forget_sums(subject, kind)


def _attribute_one(path, kind, subject, progress):
    """Compute one attribution; of processes side by side, each calls this."""
    from neuroigc.attribution import integrated_gradient_correlation
    from neuroigc.cli.processes import loading

    folder = StudyFolder.open(path)
    with loading():
        data, options = _load(folder, kind, subject)
    checkpoint = folder.sums(subject, kind)
    return integrated_gradient_correlation(
        *data, **options, checkpoint=checkpoint, progress=progress
    )


def attribute_shard_of_all(folder, *, number, size, keep, progress):
    """Take a share of every attribution; no job needs to know of the others."""
    from neuroigc.attribution import attribute_shard

    for k, (kind, subject) in enumerate(_all_of(folder.config)):
        path = folder.shard(subject, kind, number, size)
        if keep and path.exists():
            continue
        if _has_windows(folder, kind):
            if number == _owner(k, size):
                map_fields(folder, subject, progress=progress).save(path)
            continue
        data, options = _load(folder, kind, subject)
        if options["max_gradients"] is None:
            options["max_gradients"] = SHARD_GRADIENTS
        # Small data have few blocks to share: so that not always the same jobs are left without.
        turn = (number - 1 + k) % size + 1
        name = f"{kind}_job-{number}"
        attribute_shard(
            path,
            *data,
            shard=(turn, size),
            checkpoint=folder.sums(subject, name),
            progress=progress,
            **options,
        )
        folder.forget_sums(subject, name)


def merge_shards_of_all(folder, *, size, keep, progress):  # noqa: ARG001 - as every stage
    """Add up the shares of every attribution."""
    from neuroigc.attribution import IGCResult, merge_shards
    from neuroigc.attribution.estimate import exceeds

    for k, (kind, subject) in enumerate(_all_of(folder.config)):
        if _has_windows(folder, kind):
            path = folder.shard(subject, kind, _owner(k, size), size)
            save_maps(folder, subject, IGCResult.load(path))
            continue
        paths = [folder.shard(subject, kind, number, size) for number in range(1, size + 1)]
        result = merge_shards(paths)
        result.save(folder.attribution(subject, kind))
        part = getattr(folder.config, kind)
        if part.max_gradients is None and exceeds(
            result.numerical_error, result.completeness_gap, part.tolerance
        ):
            print(
                f"neuroigc: sub-{subject}, {kind}: a tolerance of {part.tolerance} is not met "
                f"after {result.n_gradients} gradients per sample; set [{kind}] max_gradients",
                file=sys.stderr,
            )


def _all_of(config):
    """Return the kind and subject of every attribution."""
    decoded = config.data.subjects if config.decoding else ()
    encoded = config.encoding.subjects if config.encoding else ()
    return [*(("decoding", s) for s in decoded), *(("encoding", s) for s in encoded)]


def _has_windows(folder, kind):
    return kind == "encoding" and has_windows(folder.config)


def _owner(k, size):
    """Return the job that does the whole of attribution number ``k``, which is not shared."""
    return k % size + 1


def _load(folder, kind, subject):
    """Return the model, inputs and targets of an attribution, and its options."""
    from neuroigc.models import NeuralDecoder, NeuralEncoder

    config = folder.config
    part = getattr(config, kind)
    options = {
        "device": config.device,
        "seed": config.seed,
        "tolerance": part.tolerance,
        "max_gradients": part.max_gradients,
    }
    if kind == "encoding":
        encoder = NeuralEncoder.load(folder.model(f"encoder_sub-{subject}"))
        samples = encoding_samples(folder, subject, held_out=True)
        options["pool"] = part.pool
        return (encoder.module_, samples.images, samples.responses), options
    decoder = NeuralDecoder.load(folder.model("decoder"))
    samples = decoding_samples(folder, held_out=True, subject=subject)
    options["conditions"] = samples.conditions
    options["groups"] = area_groups(folder, subject, samples.vertices)
    options["n_permutations"] = part.n_permutations
    options["keep_null"] = needs_neighbours(part.map_tests)
    # Maps of permuted features are all in memory, however many there are.
    numbers = samples.features.shape[1] * (samples.responses.shape[1] + 3 * len(samples.features))
    options["memory"] = max(1.0, 3 * 4 * (part.n_permutations + 1) * numbers / 2**30)
    return (decoder.module_, samples.responses, samples.features), options
