"""The model card: complete when first written, and careful with what people wrote into it."""

import json
from dataclasses import replace

import huggingface_hub
import pytest
from helpers import identity_model, make_config

from cyclegan.errors import BadCheckpointError
from cyclegan.model import CycleGAN
from train.card import figures, write_card

COMMAND = "python -m train fit --data crops/x --run runs/x --model checkpoints/x --hours 2 --domains 'no hat' hat"
TRAINED = {
    "recipe": {"batch": 4, "stages": [[64, 0.0], [96, 0.3]], "seed": 7},
    "pairs": 37778,
    "hours": 1.51,
    "command": COMMAND,
}
SCORES = {"images": 237, "kid": 1.234, "kid_share": None, "flip_rate": 0.953, "changed_outside": 0.031}
METRICS = {
    "split": "test",
    "features": "O-Net",
    "kid_subset": 89,
    "kid_subsets": 100,
    "classifier_accuracy": 0.981,
    "A2B": SCORES,
    "B2A": SCORES | {"images": 161, "flip_rate": 0.5, "changed_outside": None},
}


@pytest.fixture
def folder(tmp_path):
    config = make_config("hats", training=TRAINED, metrics=METRICS, license="Research only.")
    identity_model(config).save_pretrained(tmp_path / "hats")
    return tmp_path / "hats"


def card(folder):
    write_card(folder)
    return (folder / "README.md").read_text()


def change(folder, **changes):
    model = CycleGAN.from_pretrained(folder)
    model.config = replace(model.config, **changes)
    model.save_pretrained(folder)


def test_a_new_card_is_complete_and_the_hub_can_read_it(folder):
    text = card(folder)
    parsed = huggingface_hub.ModelCard(text)
    assert parsed.data.license == "other" and parsed.data.pipeline_tag == "image-to-image"
    assert "faces" in parsed.data.tags and parsed.data.library_name
    assert "# Hats" in text and "--model hats --direction A2B" in text
    for heading in ("Figures", "Limitations", "Intended use", "Out of scope", "Data and licence", "Training"):
        assert f"\n## {heading}\n" in text
    assert "Research only." in text and "identifying" in text
    assert "\n\n\n" not in text and "None" not in text


def test_the_training_part_tells_all_that_it_takes_to_go_on(folder):
    text = card(folder)
    assert "37,778 pairs (9,444 steps of 4) in 1.51 hours: recipe `face`, 64 then 96 pixels, seed 7" in text
    assert COMMAND in text
    again = next(line for line in text.splitlines() if "--init" in line)
    assert again.startswith("python -m train fit --data crops/x --hours 2 --domains 'no hat' hat")
    assert again.endswith("--run runs/x-continued --model checkpoints/x-continued --init checkpoints/x")


def test_a_taught_model_goes_on_without_its_teacher(folder):
    command = "python -m train distill --teacher runs/large/model --data=crops/x --run runs/x --filters 16"
    change(folder, training=TRAINED | {"command": command, "teacher": "large"})
    text = card(folder)
    assert "taught by `large`" in text and "recipe `student`" in text
    assert (
        "python -m train fit --data=crops/x --filters 16 --distill 0 --recipe student --run runs/x-continued "
        "--init runs/x/model" in text
    )


def test_commands_of_the_card_are_understood_by_the_command_line(folder):
    import shlex

    from train.__main__ import main

    for command in [line for line in card(folder).splitlines() if line.startswith("python -m train fit")]:
        assert main([*shlex.split(command)[3:], "--dry-run"]) == 0


def test_figures_are_a_table_with_how_they_were_measured(folder):
    text = card(folder)
    assert "| | Change (A2B) | Change back (B2A) |\n|---|---|---|\n" in text
    assert "| images | 237 | 161 |" in text
    assert "| KID x 100 (O-Net, 100 subsets of 89) | 1.23 | 1.23 |" in text
    assert "| KID as a share of the identity copy's | - | - |" in text
    assert "| flip rate (classifier right on 98.1% of real images) | 95.3% | 50.0% |" in text
    assert "| pixels changed outside the face | 3.1% | - |" in text
    assert "not with published figures" in text
    assert "cycle L1" not in text  # it was not measured


def test_inception_figures_need_no_warning(folder):
    change(folder, metrics=METRICS | {"features": "Inception"})
    assert "not with published figures" not in card(folder)


def test_figures_of_an_earlier_version_are_shown_as_far_as_they_go():
    assert figures({"A2B": {"cycle_l1": 0.05}, "B2A": {"cycle_l1": 0.06}}) == [("cycle L1", "0.0500", "0.0600")]
    assert figures({}) == []


def test_a_model_without_figures_or_history_has_a_card_too(folder):
    change(folder, metrics={}, training={}, description="", license="")
    text = card(folder)
    assert "Not measured yet" in text and "not stated" in text and "\n\n\n" not in text


def test_what_people_wrote_survives_and_what_was_generated_is_renewed(folder):
    text = card(folder).replace("Not written down yet.", "Sunglasses come out as holes.")
    text = text.replace("license: other", "license: mit") + "\nThanks to all.\n"
    (folder / "README.md").write_text(text)
    change(folder, metrics=METRICS | {"A2B": SCORES | {"images": 9999}})
    (folder / "grid.png").touch()
    (folder / "failures.jpg").touch()
    renewed = card(folder)
    assert renewed != text
    pictures = renewed.split("<!-- generated: failures -->\n")[1].split("<!-- end -->")[0]
    assert pictures.startswith("![Where it fails](failures.jpg)\n")
    assert renewed.replace("9999", "237").replace("![Translations](grid.png)\n", "").replace(pictures, "") == text
    assert card(folder) == renewed


def test_a_card_that_lost_a_part_is_kept_and_that_is_said(folder, capsys):
    (folder / "README.md").write_text("# Mine\n<!-- generated: figures -->\nold\n<!-- end -->\n")
    text = card(folder)
    assert text.startswith("# Mine\n<!-- generated: figures -->\n| |") and "old" not in text
    assert "generated: training" in capsys.readouterr().err


def test_a_card_in_another_encoding_is_left_alone_and_that_is_said(folder, capsys):
    text = card(folder).replace("## Limitations", "## Limitations\n\nSchöne Brillen.").encode("cp1252")
    (folder / "README.md").write_bytes(text)
    write_card(folder)
    assert (folder / "README.md").read_bytes() == text
    assert "not in UTF-8" in capsys.readouterr().err


def test_a_model_of_grey_images_is_in_colour_and_no_start_for_its_own_training(folder):
    training = json.loads((folder / "config.json").read_text())["training"]
    assert "--init" in card(folder)
    change(folder, training=training | {"recipe": training["recipe"] | {"generator": {"channels": 1}}})
    assert "--init" not in card(folder) and training["command"][:20] in card(folder)


def test_a_part_that_lost_its_end_takes_nothing_else_with_it(folder):
    text = card(folder)
    start, _, rest = text.partition("<!-- generated: figures -->")
    broken = start + "<!-- generated: figures -->" + rest.replace("<!-- end -->", "", 1)
    (folder / "README.md").write_text(broken)
    assert card(folder) == broken


def test_a_folder_that_is_no_model_is_said(tmp_path):
    with pytest.raises(BadCheckpointError):
        write_card(tmp_path)
