"""The tables and the pictures of a result."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from .cases import LABELS, MEAN_DOCUMENT

Row = dict[str, Any]
NEEDED = 1e-4  # how far a float32 logit may be from eager's

# Okabe and Ito's palette; markers and dashes carry the same information for those who can't see the colours.
LOOKS: dict[str, dict[str, Any]] = {
    "ours": dict(color="#0072B2", marker="o", linewidth=2.4, zorder=5),
    "hf_flex": dict(color="#56B4E9", marker="v", linestyle=(0, (4, 2))),
    "sdpa": dict(color="#D55E00", marker="s"),
    "sdpa_causal": dict(color="#E69F00", marker="D", linestyle=(0, (5, 1, 1, 1))),
    "per_document": dict(color="#009E73", marker="^", linestyle=(0, (2, 1))),
    "varlen": dict(color="#CC79A7", marker="P", linestyle=(0, (6, 2))),
    "last_keys": dict(color="#009E73", marker="X", linestyle=(0, (2, 1))),
    "eager": dict(color="#777777", marker="x", linestyle=(0, (1, 1))),
}
HATCHES = {
    "ours": "",
    "hf_flex": "..",
    "sdpa": "//",
    "sdpa_causal": "xx",
    "per_document": "--",
    "varlen": "++",
    "last_keys": "||",
    "eager": "",
}
MASKS = {
    "causal": "dense causal",
    "packed": "packed documents",
    "window": "sliding window of 1,024",
}


# ------------------------------------------------------------------------------------------------------ picking rows


def pick(document: Row, **wanted: Any) -> list[Row]:
    """Rows whose case is as wanted, in order of length."""
    rows = [row for row in document["rows"] if all(row["case"][key] == value for key, value in wanted.items())]
    return sorted(rows, key=lambda row: row["case"]["length"])


def one(document: Row, **wanted: Any) -> Row | None:
    """The measured row of a case, if there is one."""
    rows = [row for row in pick(document, **wanted) if row["status"] == "ok"]
    return rows[0] if rows else None


def reference_ms(document: Row, case: Row, implementation: str) -> float | None:
    """Milliseconds of another implementation on the same input.  A dense mask costs the same whatever stands in it."""
    same = {key: case[key] for key in ("work", "length", "batch", "dtype")}
    exact = one(document, implementation=implementation, mask=case["mask"], mean_document=case["mean_document"], **same)
    if exact is None and implementation == "sdpa" and case["work"] != "decode":
        exact = one(document, implementation="sdpa", mask="packed", **same)
    return exact["ms"] if exact else None


def label(case: Row) -> str:
    """What an implementation is called in a table: a decode step that reads all keys gives sdpa no mask."""
    unmasked = case["work"] == "decode" and case["mask"] == "causal" and case["implementation"] == "sdpa"
    return "sdpa, no mask needed" if unmasked else LABELS[case["implementation"]]


# ------------------------------------------------------------------------------------------------------------ tables


def print_parity(rows: list[Row]) -> None:
    print("\n".join(parity_table(rows)))


def parity_table(rows: list[Row]) -> list[str]:
    """Largest difference of a logit from eager's in float32: a line for each kind of mask, a column for each way."""
    lines = []
    for dtype, length in dict.fromkeys((row["dtype"], row["length"]) for row in rows):
        mine = [row for row in rows if row["dtype"] == dtype and row["length"] == length]
        names = list(dict.fromkeys(row["implementation"] for row in mine))
        lines += ["", f"largest difference from eager's float32 logits: {dtype}, length {length}", ""]
        table = [["mask", *names, "if it were causal"]]
        for kind in dict.fromkeys(row["mask"] for row in mine):
            found = {row["implementation"]: row for row in mine if row["mask"] == kind}
            other = max((row.get("difference_if_the_mask_were_causal", 0.0) for row in found.values()), default=0.0)
            table.append([kind, *(parity_cell(found.get(name)) for name in names), f"{other:.2g}" if other else "-"])
        lines += markdown(table)
    return lines


def parity_cell(row: Row | None) -> str:
    if row is None:
        return "-"
    if "error" in row:
        return "does not compile" if "ompile" in row["error"] else "error"
    said = "NaN" if row["nan_where_a_key_is_seen"] else f"{row['largest_difference']:.1e}"
    return said + (" (NaN in padding)" if row["nan_where_none_is_seen"] else "")


def markdown(table: list[list[str]]) -> list[str]:
    """A table that is one in a terminal too."""
    wide = [max(len(row[column]) for row in table) for column in range(len(table[0]))]

    def line(row: list[str]) -> str:
        cells = [cell.ljust(wide[i]) if i == 0 else cell.rjust(wide[i]) for i, cell in enumerate(row)]
        return "| " + " | ".join(cells) + " |"

    rule = "|" + "|".join(("-" * (n + 1) + ("-" if i == 0 else ":")) for i, n in enumerate(wide)) + "|"
    return [line(table[0]), rule, *map(line, table[1:])]


COLUMNS = [
    "tokens", "ms", "tokens/s", "peak GiB", "over weights", "TFLOP left", "of matmul rate", "attention, ms a layer",
    "mask, ms", "first call, s", "against sdpa",
]  # fmt: skip


def full_table(document: Row) -> list[str]:
    """Every case, a section for each kind of work, mask and size of documents."""
    lines: list[str] = []
    sections = dict.fromkeys(
        (row["case"]["work"], row["case"]["mask"], row["case"]["mean_document"]) for row in document["rows"]
    )
    works = {"forward": "Forward", "backward": "Forward and backward", "decode": "One decode step"}
    for work, mask, mean in sections:
        rows = pick(document, work=work, mask=mask, mean_document=mean)
        of = f", {mean:,} tokens on average" if mask == "packed" else ""
        lines += ["", f"### {works[work]}: {MASKS[mask]}{of}", ""]
        table = [["", *COLUMNS]]
        for row in sorted(rows, key=lambda row: (row["case"]["batch"], row["case"]["length"])):
            case = row["case"]
            size = f"{case['batch']} x {case['length']:,}"
            if row["status"] != "ok":
                table.append([label(case), size, said(row), *[""] * (len(COLUMNS) - 2)])
                continue
            table.append([label(case), size, *cells(document, row)])
        lines += markdown(table)
    return lines


def said(row: Row) -> str:
    return row["status"] if row["status"] in ("time was up", "failed") else row["why"]


def cells(document: Row, row: Row) -> list[str]:
    against = reference_ms(document, row["case"], "sdpa")
    return [
        f"{row['ms']:.1f}" if row["ms"] < 1000 else f"{row['ms']:,.0f}",
        f"{row['tokens_per_second']:,.0f}",
        f"{row['peak_gib']:.2f}",
        f"{row['peak_over_weights_gib']:.2f}",
        f"{row['flops'] / 1e12:.3g}",
        "" if row["of_matmul_rate"] is None else f"{row['of_matmul_rate']:.1%}",
        "" if row["attention_ms"] is None else f"{row['attention_ms']:.3f}",
        f"{row['mask_ms']:.1f}",
        f"{row['first_ms'] / 1e3:.2f}",
        "" if against is None else f"{against / row['ms']:.2f}x",
    ]


def host_bound(document: Row) -> int:
    """The longest forward pass, in tokens, that on a GPU takes hardly longer than the shortest: launching it takes the time.

    Differences between implementations up to there are those of the host's moods.
    """
    fastest: dict[int, float] = {}
    for row in pick(document, work="forward", batch=1):
        if row["status"] == "ok":
            length = row["case"]["length"]
            fastest[length] = min(row["ms"], fastest.get(length, row["ms"]))
    if document["device"] != "cuda" or not fastest:
        return 0
    return max(length for length, ms in fastest.items() if ms < 1.5 * fastest[min(fastest)])


def headline(document: Row) -> list[str]:
    """What the result says, in sentences with numbers."""
    lines = []
    lengths = sorted({row["case"]["length"] for row in pick(document, work="forward", mask="packed", batch=1)})
    for length in [n for n in lengths if n > host_bound(document)][-2:]:
        wanted = dict(work="forward", mask="packed", length=length, batch=1, mean_document=MEAN_DOCUMENT)
        ours = one(document, implementation="ours", **wanted)
        if ours is None:
            continue
        others = {
            name: row for name in LABELS if name != "ours" and (row := one(document, implementation=name, **wanted))
        }
        for key, what in (("ms", "the whole forward pass"), ("attention_ms", "attention of one layer alone")):
            times = [
                f"{row[key] / ours[key]:.2f} times as fast as {LABELS[name]}"
                for name, row in others.items()
                if row[key]
            ]
            if ours[key] and times:
                lines.append(
                    f"{length:,} tokens of packed documents, {ours['visible_fraction']:.1%} of all pairs left, {what}: "
                    f"{spoken(ours[key])} ms, {'; '.join(times)}."
                )
    for length in sorted({row["case"]["length"] for row in pick(document, work="forward", mask="causal", batch=1)}):
        ours = one(document, implementation="ours", work="forward", mask="causal", length=length, batch=1)
        flash = one(document, implementation="sdpa_causal", work="forward", mask="causal", length=length, batch=1)
        if ours and flash and length > host_bound(document):
            lines.append(
                f"{length:,} tokens, dense causal: {ours['ms']:.1f} ms, {flash['ms'] / ours['ms']:.2f} times as fast as "
                f"{LABELS['sdpa_causal']}."
            )
    if length := host_bound(document):
        lines.append(
            f"Up to {length:,} tokens a forward pass takes hardly longer than one of {lengths[0]:,}: the host's launches "
            "decide, and differences between implementations mean nothing. Attention alone does not depend on the host."
        )
    for length in (4096, 16384):
        peaks = {
            mask: row["peak_over_weights_gib"]
            for mask in MASKS
            if (row := one(document, implementation="ours", work="forward", mask=mask, length=length, batch=1))
        }
        if len(peaks) > 1:
            said = ", ".join(f"{MASKS[mask]} {gib:.2f} GiB" for mask, gib in peaks.items())
            lines.append(f"Peak memory of FlexAttention's forward pass at {length:,} tokens, weights left out: {said}.")
    return lines


def summary(document: Row) -> dict[str, dict[str, dict[str, float]]]:
    """For pages that quote a number: by case, as `forward_packed_16384`, and implementation, what it takes and how many times
    as long as FlexAttention that is, of the whole pass and of the attention of one layer.  Rows of one sequence only.
    """
    found: dict[str, dict[str, dict[str, float]]] = {}
    for row in document["rows"]:
        case = row["case"]
        if row["status"] != "ok" or case["batch"] != 1 or case["mean_document"] != MEAN_DOCUMENT:
            continue
        key = f"{case['work']}_{case['mask']}_{case['length']}"
        same = {name: case[name] for name in ("work", "mask", "length", "batch", "mean_document")}
        ours = one(document, implementation="ours", **same)
        numbers = {"ms": row["ms"], "attention_ms": row["attention_ms"], "gib": row["peak_over_weights_gib"]}
        if ours:
            numbers |= {"times": row["ms"] / ours["ms"], "first_seconds": row["first_ms"] / 1e3}
            if row["attention_ms"] and ours["attention_ms"]:
                numbers["attention_times"] = row["attention_ms"] / ours["attention_ms"]
        found.setdefault(key, {})[case["implementation"]] = numbers
    return found


def print_table(document: Row) -> None:
    print("\n".join([*full_table(document), "", *headline(document)]))


def write_markdown(document: Row, path: Path) -> Path:
    """The whole table as a page."""
    machine, rate = document["machine"], document["matmul"]
    rates = ", ".join(f"{dtype} {value / 1e12:.3g} TFLOP/s" for dtype, value in rate["matmul_rate"].items())
    lines = [
        f"# {machine['name']}",
        "",
        f"{document['what']}. {document['model_said']}; torch {document['versions']['torch']}, transformers "
        f"{document['versions']['transformers']}; matrix products of {rate['n']}³: {rates}.",
        "",
        *(f"- {line}" for line in headline(document)),
        "",
        "## Do the logits agree?",
        *parity_table(document["parity"]),
        "",
        "## All cases",
        "",
        "“TFLOP left” is what the mask leaves to compute; “of matmul rate” is that, over the time, over the rate of a large "
        "matrix product. “attention” is the attention function of one layer alone. “first call” includes compiling. “against "
        "sdpa” is the speed over `sdpa` with the dense mask on the same tokens.",
        *full_table(document),
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


# ---------------------------------------------------------------------------------------------------------- pictures


def draw(document: Row, stem: Path) -> list[Path]:
    """Pictures of the forward pass as `stem`.png and .svg, of the rest as `stem`-more.png and .svg."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    style = {"font.size": 10, "svg.fonttype": "none", "svg.hashsalt": "flexnano", "axes.grid": True, "grid.alpha": 0.3}
    style |= {"hatch.linewidth": 0.6}
    paths = []
    with plt.rc_context(style):
        for suffix, drawers in (
            ("", [over_length, over_sparsity, dense_causal, memory]),
            ("-more", [attention_alone, backward, decode_attention, compiling]),
        ):
            figure, axes = plt.subplots(2, 2, figsize=(12.5, 9.2), facecolor="white")
            for drawer, axis in zip(drawers, axes.flat, strict=True):
                drawer(document, axis)
                axis.spines[["top", "right"]].set_visible(False)
            figure.suptitle(caption(document), fontsize=10.5)
            figure.tight_layout(h_pad=2.2)
            for ending, more in ((".png", {"dpi": 130}), (".svg", {"metadata": {"Date": None}})):
                path = stem.with_name(stem.name + suffix + ending)
                figure.savefig(path, **more)
                paths.append(path)
            plt.close(figure)
    return paths


def caption(document: Row) -> str:
    versions = document["versions"]
    return (
        f"{document['model_said']}\n{document['machine']['name']}, {dtype_of(document)}, torch {versions['torch']}, "
        f"transformers {versions['transformers']}"
    )


def dtype_of(document: Row) -> str:
    return ", ".join(sorted({row["case"]["dtype"] for row in document["rows"]}))


def names(rows: Iterable[Row]) -> list[str]:
    there = {row["case"]["implementation"] for row in rows}
    return [name for name in LABELS if name in there]


def curves(
    axis: Any, rows: list[Row], x: Callable[[Row], float], y: Callable[[Row], float | None], leave_out: str = ""
) -> None:
    """A line for each implementation."""
    for name in names(rows):
        points = [
            (x(row), value)
            for row in rows
            if row["case"]["implementation"] == name and row["status"] == "ok" and (value := y(row)) is not None
        ]
        if points and name != leave_out:
            line = {} if len(points) > 2 else {"linestyle": ""}  # two points are not a curve
            axis.plot(*zip(*sorted(points), strict=True), label=LABELS[name], **LOOKS[name] | line)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=9, frameon=False)


def lengths_on(axis: Any, rows: list[Row]) -> None:
    ticks = sorted({row["case"]["length"] for row in rows})
    axis.set_xscale("log", base=2)
    axis.set_xticks(ticks, [f"{n // 1024}k" if n % 1024 == 0 else str(n) for n in ticks])
    axis.set_xlabel("tokens in the row")


def level(axis: Any, text: str) -> None:
    axis.axhline(1, color="black", linewidth=0.9)
    at = {"xycoords": ("axes fraction", "data"), "xytext": (0, 3), "textcoords": "offset points"}
    axis.annotate(text, (0.99, 1), **at, ha="right", fontsize=9)


def shade_host_bound(document: Row, axis: Any) -> None:
    """Grey where the host's launches decide."""
    if length := host_bound(document):
        limits = axis.get_xlim()
        axis.axvspan(limits[0], length * 2**0.5, color="#e8e8e8", zorder=0, linewidth=0)
        axis.set_xlim(limits)
        at = {"xycoords": "axes fraction", "fontsize": 9}
        axis.annotate("grey: the host's launches\ndecide, not attention", (0.02, 0.38), **at)


def over_length(document: Row, axis: Any) -> None:
    rows = pick(document, work="forward", mask="packed", batch=1, mean_document=MEAN_DOCUMENT)

    def speed(row: Row) -> float | None:
        against = reference_ms(document, row["case"], "sdpa")
        return against / row["ms"] if against else None

    curves(axis, rows, lambda row: row["case"]["length"], speed, leave_out="sdpa")
    lengths_on(axis, rows)
    shade_host_bound(document, axis)
    level(axis, "sdpa with the dense mask")
    axis.set_ylim(bottom=0)
    axis.set_ylabel("times as fast as sdpa with the dense mask")
    axis.set_title("Forward, packed documents of 1k tokens on average")


def attention_alone(document: Row, axis: Any) -> None:
    rows = pick(document, work="forward", mask="packed", batch=1, mean_document=MEAN_DOCUMENT)
    against = {
        row["case"]["length"]: row["attention_ms"]
        for row in rows
        if row["case"]["implementation"] == "sdpa" and row["status"] == "ok"
    }

    def speed(row: Row) -> float | None:
        other = against.get(row["case"]["length"])
        return other / row["attention_ms"] if other and row["attention_ms"] else None

    curves(axis, rows, lambda row: row["case"]["length"], speed, leave_out="sdpa")
    lengths_on(axis, rows)
    axis.set_yscale("log", base=2)
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    level(axis, "sdpa with the dense mask")
    axis.set_ylabel("times as fast as sdpa with the dense mask")
    axis.set_title("The attention of one layer alone, packed documents")


def over_sparsity(document: Row, axis: Any) -> None:
    packed = [row for row in pick(document, work="forward", mask="packed", batch=1) if row["status"] == "ok"]
    counts = {n: sum(row["case"]["length"] == n for row in packed) for n in {row["case"]["length"] for row in packed}}
    length = max(counts, key=lambda n: (counts[n], n), default=0)
    rows = [row for row in packed if row["case"]["length"] == length]

    def speed(row: Row) -> float | None:
        against = reference_ms(document, row["case"], "sdpa")
        return against / row["ms"] if against else None

    curves(axis, rows, lambda row: 100 * row["visible_fraction"], speed, leave_out="sdpa")
    axis.set_xscale("log")
    ticks = sorted({round(100 * row["visible_fraction"], 1) for row in rows})
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.minorticks_off()
    axis.invert_xaxis()
    axis.set_ylim(bottom=0)
    level(axis, "sdpa with the dense mask")
    axis.set_xlabel("percent of all pairs that the mask leaves (to the right: shorter documents)")
    axis.set_ylabel("times as fast as sdpa with the dense mask")
    axis.set_title(f"Forward of {length:,} tokens: the sparser, the faster")


def dense_causal(document: Row, axis: Any) -> None:
    rows = pick(document, work="forward", mask="causal", batch=1)

    def speed(row: Row) -> float | None:
        against = reference_ms(document, row["case"], "sdpa_causal")
        return against / row["ms"] if against else None

    curves(axis, rows, lambda row: row["case"]["length"], speed, leave_out="sdpa_causal")
    dense = [
        row for row in pick(document, work="forward", mask="packed", batch=1) if row["case"]["implementation"] == "sdpa"
    ]
    points = [
        (row["case"]["length"], flash["ms"] / row["ms"])
        for row in dense
        if row["status"] == "ok"
        and (
            flash := one(document, implementation="sdpa_causal", work="forward", batch=1, length=row["case"]["length"])
        )
    ]
    if points:
        axis.plot(*zip(*sorted(set(points)), strict=True), label=LABELS["sdpa"], **LOOKS["sdpa"])
        axis.legend(fontsize=9, frameon=False)
    lengths_on(axis, rows)
    shade_host_bound(document, axis)
    level(axis, "sdpa with is_causal")
    axis.set_ylim(bottom=0)
    axis.set_ylabel("times as fast as sdpa with is_causal")
    axis.set_title("Forward, dense causal: nothing to skip but the future")


def memory(document: Row, axis: Any) -> None:
    rows = pick(document, work="forward", mask="packed", batch=1, mean_document=MEAN_DOCUMENT)
    curves(axis, rows, lambda row: row["case"]["length"], lambda row: max(row["peak_over_weights_gib"], 1e-3))
    top = axis.get_ylim()[1]
    for row in rows:
        if row["status"] == "does not fit":
            look = LOOKS[row["case"]["implementation"]]
            axis.annotate(
                "does not fit",
                (row["case"]["length"], top),
                color=look["color"],
                ha="right",
                va="top",
                rotation=90,
                fontsize=9,
            )
    lengths_on(axis, rows)
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_ylabel("GiB at the peak" + (", weights left out" if document["device"] == "cuda" else " of the process"))
    axis.set_title("Memory of the forward pass, packed documents")


def bars(axis: Any, groups: dict[str, list[tuple[str, float | None, str]]], unit: str) -> None:
    """Horizontal bars: {heading: [(implementation, value or None, what to say)]}."""
    y, ticks = 0.0, []
    largest = max((value for rows in groups.values() for _, value, _ in rows if value is not None), default=1.0)
    for heading, rows in groups.items():
        ticks.append((y + (len(rows) - 1) / 2, heading))
        for name, value, text in rows:
            axis.barh(y, value or 0, height=0.78, color=LOOKS[name]["color"], hatch=HATCHES[name], edgecolor="white")
            axis.annotate(
                text,
                (value or 0, y),
                (4, 0),
                textcoords="offset points",
                va="center",
                fontsize=8.5,
            )
            y += 1
        y += 0.8
    axis.set_yticks([at for at, _ in ticks], [text for _, text in ticks])
    axis.invert_yaxis()
    axis.set_xlim(0, largest * 1.9)
    axis.grid(axis="y", visible=False)
    axis.set_xlabel(unit)


def grouped(
    rows: list[Row], heading: Callable[[Row], str], value: Callable[[Row], float | None]
) -> dict[str, list[tuple[str, float | None, str]]]:
    groups: dict[str, list[tuple[str, float | None, str]]] = {}
    rows = sorted(rows, key=lambda row: (row["case"]["mask"], row["case"]["batch"], row["case"]["length"]))
    for row in rows:
        number = value(row) if row["status"] == "ok" else None
        text = said(row) if row["status"] != "ok" else "" if number is None else spoken(number)
        if text and row["status"] != "time was up":
            text = f"{text}  {label(row['case'])}"
            groups.setdefault(heading(row), []).append((row["case"]["implementation"], number, text))
    order = list(LABELS)
    return {heading: sorted(bars, key=lambda bar: order.index(bar[0])) for heading, bars in groups.items()}


def spoken(ms: float) -> str:
    return f"{ms:,.0f}" if ms >= 100 else f"{ms:.3g}"


def backward(document: Row, axis: Any) -> None:
    rows = [row for row in pick(document, work="backward") if row["case"]["length"] in (1024, 16384)] or pick(
        document, work="backward"
    )
    bars(
        axis,
        grouped(
            rows, lambda row: f"{MASKS[row['case']['mask']]}\n{row['case']['length']:,} tokens", lambda row: row["ms"]
        ),
        "ms (less is better)",
    )
    axis.set_title("Forward and backward")


def decode_heading(row: Row) -> str:
    case = row["case"]
    return f"{MASKS[case['mask']]}\n{case['batch']} x {case['length']:,} keys"


def decode_attention(document: Row, axis: Any) -> None:
    groups = grouped(pick(document, work="decode"), decode_heading, lambda row: row["attention_ms"])
    bars(axis, groups, "ms a layer (less is better)")
    axis.set_title("One decode step: attention of one layer alone")


def compiling(document: Row, axis: Any) -> None:
    rows = pick(document, work="forward", mask="packed", batch=1, mean_document=MEAN_DOCUMENT)
    curves(axis, rows, lambda row: row["case"]["length"], lambda row: row["first_ms"] / 1e3)
    lengths_on(axis, rows)
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_ylim(bottom=0.002)  # room for the legend
    axis.set_ylabel("seconds")
    axis.set_title("The first call of each shape, which compiles")
