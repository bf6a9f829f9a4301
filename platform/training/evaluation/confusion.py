"""Display of an evaluation: a table of classes, and the confusion matrix as text and as SVG."""

from __future__ import annotations

import io
from collections.abc import Sequence

from platform.common.text_format import percent
from platform.training.evaluation.evaluate import Evaluation

_WIDEST_TABLE = 30


def class_table(evaluation: Evaluation, class_names: Sequence[str]) -> str:
    """Return a line per class: accuracy, images, and the class it is most often confused with."""
    width = max(len(name) for name in (*class_names, "class"))
    lines = [f"{'class':{width}}  accuracy  images  most often confused with"]
    rows = zip(class_names, evaluation.per_class_accuracy, evaluation.confusion, strict=True)
    for index, (name, accuracy, counts) in enumerate(rows):
        mistakes = [(count, other) for other, count in enumerate(counts) if other != index and count]
        count, other = max(mistakes, default=(0, 0))
        confused_with = f"{class_names[other]} ({count})" if count else "-"
        share = percent(accuracy)
        lines.append(f"{name:{width}}  {share:>8}  {sum(counts):6}  {confused_with}")
    return "\n".join(lines)


def confusion_table(evaluation: Evaluation, class_names: Sequence[str]) -> str:
    """Return the matrix with a row per true class, or a hint if it is too wide to read."""
    if len(class_names) > _WIDEST_TABLE:
        return f"(the confusion matrix of {len(class_names)} classes is in the files of --output)"
    width = max(len(name) for name in class_names)
    cells = [[str(count) for count in counts] for counts in evaluation.confusion]
    column = max(5, 1 + max(len(cell) for row in cells for cell in row))
    header = " " * width + "".join(f"{name[: column - 1]:>{column}}" for name in class_names)
    body = [
        f"{name:{width}}" + "".join(f"{cell:>{column}}" for cell in row)
        for name, row in zip(class_names, cells, strict=True)
    ]
    return "\n".join([header, *body])


def confusion_svg(evaluation: Evaluation, class_names: Sequence[str], *, title: str) -> str:
    """Return the matrix as SVG, with each row normalized to shares of its true class."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    count = len(class_names)
    shares = [[cell / max(1, sum(row)) for cell in row] for row in evaluation.confusion]
    figure = Figure(figsize=(2 + 0.55 * min(count, 40), 2 + 0.5 * min(count, 40)), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(count), class_names, rotation=45, ha="right")
    axes.set_yticks(range(count), class_names)
    axes.set(xlabel="predicted", ylabel="true", title=title)
    if count <= _WIDEST_TABLE:
        for y, row in enumerate(evaluation.confusion):
            for x, cell in enumerate(row):
                color = "white" if shares[y][x] > 0.5 else "black"
                axes.text(x, y, str(cell), ha="center", va="center", fontsize=8, color=color)
    text = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "confusion"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()
