"""The card of a model as its repository has it."""

from huggingface_hub import ModelCard, ModelCardData

from fmlm_cli.config import CardSettings
from fmlm_cli.errors import UserError, one_line
from fmlm_cli.recipes.shared.model_cards import HERE


def card_of(text: str, source: str, asked: CardSettings, repository: str) -> ModelCard:
    """A model's card with what is asked for in it, and the repository's name where the model is loaded.

    `source`: what it was read from. Raises `UserError` where somebody has written what is no front matter.
    """
    try:
        card = ModelCard(text.replace(HERE, repository))
    except Exception as error:  # yaml's, and whatever huggingface_hub makes of odd values
        raise UserError(f"{source}: its front matter cannot be read: {one_line(error)}") from error
    if asked.license is not None:
        card.data["license"] = asked.license
    if asked.language:
        card.data["language"] = list(asked.language)
    if card.data.get("eval_results"):
        card.data["model_name"] = repository.rpartition("/")[2]
    return card


def smallest_card(asked: CardSettings) -> str:
    """A card that is known before there is a model."""
    facts = ModelCardData(
        library_name="transformers", license=asked.license, language=list(asked.language) or None
    )
    return f"---\n{facts.to_yaml()}\n---\n"
