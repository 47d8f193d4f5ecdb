"""Memory and time of a step over a run, as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.soak.traffic import STEP

Report = dict[str, Any]
COLOURS = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000", "#999999"]


def draw(report: Report, path: Path) -> Path:
    """A PNG for the report of `python -m benchmarks.soak`."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    with plt.rc_context({"font.size": 10}):
        n = 3 if "cases" in report else 2
        fig, axes = plt.subplots(n, 1, figsize=(6.6, 1 + 2.3 * n), sharex=True, facecolor="white")
        (schedule if "cases" in report else engine)(report, *axes)
        for one in axes:
            one.spines[["top", "right"]].set_visible(False)
            one.set_ylim(0, 1.1 * one.get_ylim()[1])
            one.grid(axis="y", alpha=0.3)
        versions = report["versions"]
        axes[0].set_title(f"{title(report)}\n{report['machine']['name']}, torch {versions['torch']}", fontsize=10)
        axes[-1].legend(fontsize=9, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.25), frameon=False)
        fig.savefig(path, dpi=130, bbox_inches="tight")
        plt.close(fig)
    return path


def title(report: Report) -> str:
    if "cases" in report:
        return f"{report['total']['requests']:,} requests through scheduler and page table, a hash for a model"
    engines = "one engine" if report["engines"] == 1 else f"{report['engines']} engines on one model"
    return f"{report['minutes']:.0f} minutes: {report['requests']:,} requests, {report['steps']:,} steps, {engines}"


def schedule(report: Report, above: Any, middle: Any, below: Any) -> None:
    """One case after the other, over the requests that have ended.  Steps by the second are the machine's too."""
    before = 0
    for colour, (name, case) in zip(COLOURS, report["cases"].items(), strict=True):
        done = [(before + one["requests"]) / 1000 for one in case["intervals"]]
        above.plot(done, [one["rss_mib"] for one in case["intervals"]], color=colour)
        middle.plot(done, [one["steps_per_second"] for one in case["intervals"]], color=colour)
        cost = [one["microseconds_of_processor_a_step"] for one in case["intervals"]]
        below.plot(done, cost, color=colour, label=name)
        before += case["requests"]
    above.set_ylabel("memory of the\nprocess, MiB")
    middle.set_ylabel("steps a second")
    below.set_ylabel("processor time of a\nstep, µs")
    below.set_xlabel("thousand requests")


def engine(report: Report, above: Any, below: Any) -> None:
    """Over time: memory while engines work and after they are closed, and the step of the same eight requests."""
    turns = report["turns"]
    samples = [one for turn in turns for one in turn["samples"]]
    above.plot(
        [s["minute"] for s in samples], [s["rss_mib"] for s in samples], ".", ms=3, color="#999999", label="at work"
    )
    above.plot([t["minute"] for t in turns], [t["rss_mib"] for t in turns], color="#0072B2", label="at rest")
    if "device_allocated_mib" in turns[0]:
        for key, colour in (("allocated", "#D55E00"), ("reserved", "#E69F00")):
            values = [s[f"device_{key}_mib"] for s in samples]
            above.plot([s["minute"] for s in samples], values, color=colour, label=f"device, {key}")
    above.legend(fontsize=9, frameon=False, loc="center right")
    above.set_ylabel("memory, MiB")
    for colour, name in zip(COLOURS, report["settings"], strict=False):
        own = [turn for turn in turns if turn["setting"] == name]
        values = [turn[STEP[report["device"]]] for turn in own]
        below.plot([t["minute"] for t in own], values, ".-", ms=4, lw=1, color=colour, label=name)
    unit = "by the model's\nlast product" if report["device"] == "cpu" else "ms"
    below.set_ylabel(f"decode step of eight\nrequests, {unit}")
    below.set_xlabel("minutes")
