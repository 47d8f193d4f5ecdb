"""The table and the picture of a result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.engines import LABELS

# Okabe and Ito's palette; hatches and labels carry the same information for those who can't see the colours.
COLOURS = {"flexnano": "#0072B2", "one_by_one": "#999999", "static": "#E69F00", "continuous": "#009E73"}
HATCHES = {"flexnano": "", "one_by_one": "...", "static": "///", "continuous": "xxx"}


def print_table(report: dict[str, Any]) -> None:
    """The result in lines for a terminal."""
    print(f"\n{'engine':14}{'dtype':10}{'threads':>8}{'output tokens/s':>24}{'first token, s':>20}")
    for name, row in report["engines"].items():
        if "error" in row:
            print(f"{name:14}did not run: {row['error'].splitlines()[-1][:90]}")
            continue
        speed, first, setting = row["output_tokens_per_second"], row["first_token_seconds"], row["setting"]
        shown = f"{speed['median']:.1f} ({speed['min']:.1f} to {speed['max']:.1f})"
        print(f"{name:14}{setting['dtype']:10}{setting['threads']:8}{shown:>24}{first['median']:11.1f} median")
    for name, ratio in report["ratios"].items():
        print(f"{name}: {ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})")
    for pair, rows in report["tokens"].get("rows_equal", {}).items():
        print(f"float32 tokens, {pair}: {rows} of {report['tokens'].get('rows', '?')} rows")
    for name, found in report["tokens"].get("engines", {}).items():
        print(
            f"float32 tokens of {name}: {found['near_ties_broken_otherwise']} near ties broken otherwise, "
            f"{found['rows_with_a_wrong_token']} rows with a wrong token, largest distance {found['largest_distance']:.1e}"
        )


def draw(report: dict[str, Any], stem: Path) -> list[Path]:
    """Draws throughput and time to first token of each engine as `stem`.png and .svg; returns the paths."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = {name: row for name, row in report["engines"].items() if "error" not in row}
    if not rows:
        return []
    names = sorted(rows, key=lambda name: rows[name]["output_tokens_per_second"]["median"])
    work = report["workload"]
    style = {"font.size": 10, "svg.fonttype": "none", "svg.hashsalt": "flexnano", "hatch.linewidth": 0.6}
    with plt.rc_context(style):
        fig, (left, right) = plt.subplots(
            1, 2, figsize=(9.5, 1.9 + 0.75 * len(names)), sharey=True, width_ratios=[3, 2], facecolor="white"
        )
        for y, name in enumerate(names):
            speed, first = rows[name]["output_tokens_per_second"], rows[name]["first_token_seconds"]
            look: dict[str, Any] = {
                "color": COLOURS[name],
                "hatch": HATCHES[name],
                "edgecolor": "white",
                "height": 0.62,
            }
            left.barh(y, speed["median"], **look)
            left.plot([speed["min"], speed["max"]], [y, y], color="black", marker="|", linewidth=1.2)
            left.annotate(f"{speed['median']:.0f}", (speed["max"], y), (6, 0), textcoords="offset points", va="center")
            right.barh(y, first["median"], **look)
            right.plot([first["median"], first["max"]], [y, y], color="black", marker="|", linewidth=1.2)
            right.annotate(f"{first['median']:.1f}", (first["max"], y), (6, 0), textcoords="offset points", va="center")
        left.set_yticks(range(len(names)), [tick(name, rows[name]["setting"]) for name in names])
        left.set_xlabel("output tokens per second\n(median and range of the runs;\nmore is better)")
        right.set_xlabel("seconds to the first token\n(median and last of the requests;\nless is better)")
        for axes in (left, right):
            axes.margins(x=0.16)
            axes.set_xlim(left=0)
            axes.spines[["top", "right"]].set_visible(False)
        machine = report["machine"]
        fig.suptitle(
            f"{report['model']}, {work['requests']} requests at once, {work['prompt_tokens']:,} tokens in, "
            f"{work['output_tokens']:,} out\n{machine['name']}, {machine['cores']} cores, "
            f"torch {report['versions']['torch']}, transformers {report['versions']['transformers']}",
            fontsize=10.5,
        )
        fig.tight_layout()
        paths = [stem.with_suffix(".png"), stem.with_suffix(".svg")]
        fig.savefig(paths[0], dpi=150)
        fig.savefig(paths[1], metadata={"Date": None})
        plt.close(fig)
    return paths


def tick(name: str, setting: dict[str, Any]) -> str:
    """An engine's name, and under it the setting in which it was fastest."""
    threads = "1 thread" if setting["threads"] == 1 else f"{setting['threads']} threads"
    return f"{LABELS[name]}\n({setting['dtype']}, {threads})"
