"""Draws the simulator's sweep: for each cost and number of models, the share answered in time by load.

    plot.py SIMULATOR.csv SIMULATOR.png
"""

import csv
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

STYLES = {
    "first in, first out, when idle": {"color": "#31588a"},
    "fixed timer of 2 ms": {"color": "#86a8d0"},
    "fixed timer of 10 ms": {"color": "#86a8d0", "linestyle": ":"},
    "earliest deadline first": {"color": "#5b9a68"},
    "Sconce": {"color": "#c8541b", "linewidth": 2.5, "zorder": 3},
    "ideal: knows costs and callers": {"color": "#8d8d8d", "linestyle": "--"},
}


def main():
    source, target = sys.argv[1:3]
    panels = {}
    with open(source, newline="", encoding="utf-8") as file:
        for record in csv.DictReader(file):
            panel = panels.setdefault((record["cost"], int(record["models"])), {})
            panel.setdefault(record["policy"], []).append((100 * float(record["load"]), 100 * float(record["in_time"])))
    costs = list(dict.fromkeys(cost for cost, _ in panels))
    models = list(dict.fromkeys(count for _, count in panels))
    figure, axes = plt.subplots(len(costs), len(models), figsize=(13, 7), sharex=True, sharey=True, layout="constrained")
    for (cost, count), panel in panels.items():
        plot = axes[costs.index(cost)][models.index(count)]
        for policy, style in STYLES.items():
            plot.plot(*zip(*panel[policy]), label=policy, **style)
        plot.set_title(f"{cost}; {count} model{'s' if count > 1 else ''}", fontsize=10)
        plot.spines[["top", "right"]].set_visible(False)
        plot.grid(alpha=0.25)
    figure.supxlabel("load, % of what batches that take half of the 50 ms could do")
    figure.supylabel("answered within 50 ms, % of all requests")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=6, frameon=False)
    figure.savefig(target, dpi=130)


if __name__ == "__main__":
    main()
