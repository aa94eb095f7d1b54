"""`train.log`: the table of losses survives kills and resumes, and becomes a picture."""

import csv

import numpy as np
from PIL import Image

from train.log import LossLog, plot_log, read_log


def written(run) -> list[tuple[int, str, float]]:
    return [(int(row["pairs"]), row["loss"], float(row["value"])) for row in read_log(run)]


def test_a_line_per_loss_and_interval(tmp_path):
    log = LossLog(tmp_path)
    log.write(100, 1.25, 64, {"cycle_A": 0.5, "D_A": 0.25})
    log.write(200, 2.5, 96, {"cycle_A": 1 / 3})
    with open(tmp_path / "losses.csv", newline="") as file:
        assert list(csv.reader(file)) == [
            ["pairs", "seconds", "size", "loss", "value"],
            ["100", "1.2", "64", "cycle_A", "0.5"],
            ["100", "1.2", "64", "D_A", "0.25"],
            ["200", "2.5", "96", "cycle_A", "0.333333"],
        ]


def test_lines_are_on_disk_at_once(tmp_path):
    LossLog(tmp_path).write(100, 1, 64, {"cycle_A": 0.5})
    assert written(tmp_path) == [(100, "cycle_A", 0.5)]


def test_a_resumed_run_drops_what_it_will_write_again(tmp_path):
    log = LossLog(tmp_path)
    for pairs in (100, 200, 300, 1000):
        log.write(pairs, pairs, 64, {"cycle_A": pairs / 1000, "D_A": 0.25})
    log = LossLog(tmp_path, resume_at=200)
    assert [row[0] for row in written(tmp_path)] == [100, 100, 200, 200]
    log.write(300, 300, 64, {"cycle_A": 9.0})
    assert written(tmp_path)[-1] == (300, "cycle_A", 9.0) and len(written(tmp_path)) == 5


def test_a_new_run_in_an_old_folder_starts_an_empty_table(tmp_path):
    LossLog(tmp_path).write(100, 1, 64, {"cycle_A": 0.5})
    LossLog(tmp_path)
    assert written(tmp_path) == []


def test_a_kill_at_any_byte_of_a_line_costs_at_most_that_line(tmp_path):
    log = LossLog(tmp_path)
    log.write(100, 1, 64, {"cycle_A": 0.5, "D_A": 0.25})
    before = (tmp_path / "losses.csv").read_bytes()
    log.write(200, 2, 64, {"cycle_A": 0.125})
    whole = (tmp_path / "losses.csv").read_bytes()
    for length in range(len(before), len(whole)):
        (tmp_path / "losses.csv").write_bytes(whole[:length])
        assert written(tmp_path)[:2] == [(100, "cycle_A", 0.5), (100, "D_A", 0.25)]
        log = LossLog(tmp_path, resume_at=100)
        log.write(200, 2, 64, {"cycle_A": 0.75})
        assert written(tmp_path) == [(100, "cycle_A", 0.5), (100, "D_A", 0.25), (200, "cycle_A", 0.75)]


def test_without_a_table_there_are_no_lines(tmp_path):
    assert read_log(tmp_path) == []


def test_the_picture_has_a_panel_per_kind_of_loss(tmp_path):
    log = LossLog(tmp_path)
    heights = []
    for losses in ({"cycle_A": 1.0}, {"cycle_A": 1.0, "D_A": 0.25, "adversarial_AB": 0.5, "r1_A": 2.0}):
        for pairs in (100, 200, 300):
            log.write(pairs, pairs, 64, losses)
        plot_log(tmp_path)
        with Image.open(tmp_path / "losses.png") as picture:
            picture.load()
            assert picture.format == "PNG" and picture.width == 1000
            heights.append(picture.height)
    assert heights == [300, 1200]


def test_a_curve_is_drawn_where_its_values_are(tmp_path):
    """A loss that falls from 1 to 0 over the run: its line leads from the upper left to the lower right."""
    log = LossLog(tmp_path)
    for step in range(11):
        log.write(100 * step, step, 64, {"cycle_A": 1 - step / 10})
    plot_log(tmp_path)
    picture = np.asarray(Image.open(tmp_path / "losses.png").convert("RGB")).astype(int)
    blue = (picture[..., 2] - picture[..., 0] > 100) & (np.arange(picture.shape[1]) < 850)  # right of it is the legend
    rows, columns = np.nonzero(blue)
    assert len(rows) > 300
    assert np.corrcoef(rows, columns)[0, 1] > 0.99
    assert rows.max() - rows.min() > 150


def test_nothing_logged_draws_nothing(tmp_path):
    LossLog(tmp_path)
    plot_log(tmp_path)
    assert not (tmp_path / "losses.png").exists()
