# %% [markdown]
# # How many images do I need?
#
# Receptive fields from natural images get better with every image shown. How good they are with
# 250, 500, 1,000 or 2,000 of them can be told beforehand: from phantoms, invented vertices on the
# images that one has, with the noise that one expects.
#
# No data are needed but images; here they are simulated too. About two minutes.

# %%
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from neuroigc.attribution import window_correlation
from neuroigc.datasets.stimuli import prepare_image
from neuroigc.datasets.synthetic_images import make_scene
from neuroigc.models import FieldEncoder
from neuroigc.prf import calibrate_prfs, fit_prf, make_phantoms, stimulus_power

FAST = "NEUROIGC_FAST" in os.environ
EXTENT_DEG = 8.4


def finish(figure, name):
    """Save the figure if the environment variable NEUROIGC_FIGURES names a folder."""
    if "NEUROIGC_FIGURES" in os.environ:
        figure.savefig(Path(os.environ["NEUROIGC_FIGURES"]) / f"{name}.png", dpi=200)


# %% [markdown]
# ## Images and phantoms
#
# Phantoms of three noise ceilings, each image shown twice. Half of them teach how to calibrate,
# the other half stand for the vertices that one wants to know about.

# %%
counts = [150, 300] if FAST else [250, 500, 1000, 2000]
images = np.stack(
    [prepare_image(make_scene(0, number, size=48).pixels) for number in range(counts[-1])]
)
levels = (0.3, 0.5, 0.8)
n_phantoms = 140 if FAST else 200
phantoms = [
    make_phantoms(
        images, extent_deg=EXTENT_DEG, n_repeats=2, ncsnr=level, n_phantoms=n_phantoms, seed=seed
    )
    for seed, level in enumerate(levels)
]
responses = np.concatenate([some.responses for some in phantoms], axis=1)

# %% [markdown]
# ## The more images, the better
#
# The encoder takes as many steps whatever the number of images.

# %%
errors = np.zeros((2, len(counts), len(levels)))
for row, count in enumerate(counts):
    encoder = FieldEncoder(max_epochs=min(60, 24_000 // count if not FAST else 8))
    encoder.fit(images[:count], responses[:count])
    maps = window_correlation(encoder.module_, images[:count]).attributions
    power = stimulus_power(images[:count], shape=maps.shape[1:])
    fields = fit_prf(maps, extent_deg=EXTENT_DEG, power=power)
    fields = fields.with_exponent(encoder.receptive_fields(EXTENT_DEG)["exponent"])
    for column, some in enumerate(phantoms):
        own = fields[column * n_phantoms : (column + 1) * n_phantoms]
        teach, test = slice(0, n_phantoms // 2), slice(n_phantoms // 2, n_phantoms)
        found, _ = calibrate_prfs(own[test], own[teach], some[teach])
        true = some[test]
        distance = np.hypot(found.x_deg - true.x_deg, found.y_deg - true.y_deg)
        errors[0, row, column] = np.nanmedian(distance)
        errors[1, row, column] = np.nanmedian(np.abs(found.size_deg / true.size_deg - 1))
    print(count, "images:", errors[:, row].round(3).tolist())

# %%
figure, axes = plt.subplots(1, 2, figsize=(7, 3), layout="constrained")
titles = ("median centre error (deg)", "median size error (share)")
for ax, values, title in zip(axes, errors, titles, strict=True):
    for level, line, marker in zip(levels, values.T, "osD", strict=True):
        ax.plot(counts, line, marker=marker, label=f"ncsnr {level}")
    ax.set(xscale="log", yscale="log", xlabel="images, two trials each", ylabel=title)
    ax.set_xticks(counts, [f"{count:,}" for count in counts])
    ax.minorticks_off()
    ticks = [
        tick
        for tick in (0.02, 0.05, 0.1, 0.2, 0.5, 1)
        if values.min() / 1.5 < tick < 1.5 * values.max()
    ]
    ax.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.spines[["top", "right"]].set_visible(False)
axes[0].legend(frameon=False)
finish(figure, "how_many_images")
better = float(errors[0, 0].mean() / errors[0, -1].mean())
last_error = float(errors[0, -1].mean())

# %% [markdown]
# Both errors fall with the number of images, and vertices with a low noise ceiling need more of
# them. Sizes rest on width and on compression, which are harder to tell than places.

# %%
plt.show()
