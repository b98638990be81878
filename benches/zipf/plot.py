"""Draws the effect of each tier under Zipf's law: requests a second, and the share answered without computing.

    plot.py ZIPF.csv ZIPF.png
"""

import csv
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def main():
    source, target = sys.argv[1:3]
    with open(source, newline="", encoding="utf-8") as file:
        records = list(csv.DictReader(file))[::-1]
    figure, axes = plt.subplots(figsize=(9, 0.6 * len(records) + 1.2), layout="constrained")
    rates = [float(record["requests_per_second"]) for record in records]
    bars = axes.barh([record["tiers"] for record in records], rates, color="#c8541b")
    labels = [
        f"{float(record['gain']):.2f} x, {100 * float(record['hit_rate']):.0f} % hits, p99 {float(record['p99_ms']):.1f} ms"
        for record in records
    ]
    axes.bar_label(bars, labels, padding=4, fontsize=9)
    axes.set_xlim(0, 1.45 * max(rates))
    axes.set_xlabel("requests a second")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(target, dpi=130)


if __name__ == "__main__":
    main()
