"""Draws the ratios of the side-by-side harness: one panel per model and number of threads.

    plot.py ENCODERS.csv ENCODERS.png
"""

import csv
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

# The colour shows the project of an engine; int8 is hatched.
COLOURS = {
    "sconce-f32": "#c8541b",
    "sconce-int8": "#c8541b",
    "candle": "#8d8d8d",
    "rten-f32": "#5b9a68",
    "rten-int8": "#5b9a68",
    "ort-f32-fused": "#31588a",
    "ort-f32-plain": "#86a8d0",
    "ort-int8-fused": "#31588a",
    "ort-int8-plain": "#86a8d0",
}


def draw(axes, records, title):
    shapes = list(dict.fromkeys(record["shape"] for record in records))
    engines = [engine for engine in COLOURS if any(record["engine"] == engine for record in records)]
    width = 0.85 / len(engines)
    for place, engine in enumerate(engines):
        own = {record["shape"]: record for record in records if record["engine"] == engine}
        low, ratio, high = (
            [float(own[shape][column]) for shape in shapes] for column in ("wall_ratio_p25", "wall_ratio", "wall_ratio_p75")
        )
        axes.bar(
            [index + (place - (len(engines) - 1) / 2) * width for index in range(len(shapes))],
            ratio,
            width,
            label=engine,
            color=COLOURS[engine],
            hatch="///" if "int8" in engine else None,
            edgecolor="white",
            linewidth=0.5,
            yerr=[[max(r - l, 0) for r, l in zip(ratio, low)], [max(h - r, 0) for r, h in zip(ratio, high)]],
            error_kw={"elinewidth": 0.8, "ecolor": "#333333"},
        )
    axes.axhline(1, color="#333333", linewidth=0.8)
    axes.set_xticks(range(len(shapes)), shapes)
    axes.set_xlabel("texts x tokens")
    axes.set_ylabel(f"times faster than {records[0]['baseline']}")
    axes.set_title(title)
    axes.spines[["top", "right"]].set_visible(False)


def main():
    source, target = sys.argv[1:3]
    with open(source, newline="", encoding="utf-8") as file:
        records = list(csv.DictReader(file))
    runs = {}
    for record in records:
        runs.setdefault((record["model"], int(record["threads"])), []).append(record)
    figure, panels = plt.subplots(len(runs), 1, figsize=(12, 4.2 * len(runs)), squeeze=False, layout="constrained")
    for axes, ((model, threads), records) in zip(panels[:, 0], runs.items()):
        draw(axes, records, f"{model}, {threads} thread{'s' if threads > 1 else ''} (thin lines: quartiles over the rounds)")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=5, frameon=False)
    figure.savefig(target, dpi=130)


if __name__ == "__main__":
    main()
