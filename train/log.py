"""The losses of a run as a table, ``losses.csv``, and as a picture of it."""

import csv
from collections import defaultdict
from pathlib import Path

_COLUMNS = ("pairs", "seconds", "size", "loss", "value")
_PANELS = {
    "Adversarial loss of the generators": ("adversarial",),
    "Loss of the discriminators (guessing: 0.25 by squares, 0.5 by absolute distances)": ("D_",),
    "Cycle and identity": ("cycle", "identity", "distill"),
    "Others": ("mask", "outside", "r1"),
}


class LossLog:
    """``run/losses.csv``, a line per loss and log interval: pairs, seconds, image size, loss, its mean since the last.

    Lines after ``resume_at`` pairs are dropped on opening: a resumed run writes them again. Raises OSError.
    """

    def __init__(self, run: Path, resume_at: int = 0):
        self._path = run / "losses.csv"
        kept = [row for row in read_log(self._path.parent) if int(row["pairs"]) <= resume_at]
        partial = run / ".losses.csv.partial"
        with open(partial, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, _COLUMNS)
            writer.writeheader()
            writer.writerows(kept)
        partial.replace(self._path)

    def write(self, pairs: int, seconds: float, size: int, means: dict[str, float]) -> None:
        """Append the means of a log interval."""
        with open(self._path, "a", newline="", encoding="utf-8") as file:
            rows = ((pairs, f"{seconds:.1f}", size, name, f"{mean:.6g}") for name, mean in means.items())
            csv.writer(file).writerows(rows)


def plot_log(run: Path) -> None:
    """Draw all losses of a run over pairs, related ones together, as ``losses.png``; nothing when none was logged."""
    curves: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for row in read_log(run):
        curves[row["loss"]].append((int(row["pairs"]), float(row["value"])))
    panels = {
        title: chosen
        for title, prefixes in _PANELS.items()
        if (chosen := sorted(name for name in curves if name.startswith(prefixes)))
    }
    if not panels:
        return
    # Without pyplot, which keeps global state and may want a screen. Slow to import, and needed once.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3 * len(panels)), layout="constrained")
    for axes, (title, names) in zip(figure.subplots(len(panels), squeeze=False)[:, 0], panels.items(), strict=True):
        for name in names:
            axes.plot(*zip(*curves[name], strict=True), label=name, linewidth=1)
        axes.set_title(title, fontsize=10)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8, ncols=2)
    axes.set_xlabel("pairs")
    figure.savefig(run / "losses.png", dpi=100)


def read_log(run: Path) -> list[dict[str, str]]:
    """The lines of a run's table as written; one cut off by a kill is left out, and without a table there are none."""
    path = run / "losses.csv"
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row["value"] and row["pairs"].isdecimal()]
