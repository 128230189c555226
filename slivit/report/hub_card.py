"""README.md of a model on the Hugging Face Hub, made of what its header says."""

import re
from pathlib import Path

from slivit.checkpoints.header import CheckpointHeader
from slivit.checkpoints.model_card import card_rows, cohort_table, epoch_chosen
from slivit.data.named_sets import set_and_size
from slivit.report.formatting import NAMES
from slivit.report.html import markdown_environment
from slivit.utils.files import atomic_write

TAGS = ("slivit", "medical", "convnext")
PIPELINES = {"regression": None, "ssl": "image-feature-extraction"}  # the Hub's, by task


def write_hub_card(path: Path, card: CheckpointHeader, repo: str, licence: str | None) -> None:
    """Write the card of a model.

    Args:
        path: of README.md.
        card: the header as it is shared (sharing.shared_header).
        repo: `owner/name`.
        licence: of the model, by the Hub's identifier; None for none.
    """
    from huggingface_hub import ModelCardData

    known = set_and_size(card.data["name"])
    metadata = ModelCardData(
        library_name="slivit", license=licence,
        tags=[*TAGS, *(["volumes"] if card.integrator else []), *([known[0]] if known else [])],
        pipeline_tag=PIPELINES.get(card.target.task, "image-classification"))
    cohorts = card.training.get("cohort", {})
    content = markdown_environment().get_template("hub_card.md.j2").render(
        metadata=metadata.to_yaml(), repo=repo, card=card, facts=card_rows(card),
        epoch_chosen=epoch_chosen(card),
        cohort=cohort_table(cohorts, card.target) if cohorts else None,
        scores=[(NAMES.get(name, name.replace("_", " ")), value)
                for name, value in card.score.items() if value is not None])
    with atomic_write(path) as part:
        part.write_text(re.sub(r"\n{3,}", "\n\n", content).strip() + "\n", encoding="utf-8")
