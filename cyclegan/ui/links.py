"""Links that restore the settings of the Photo tab; never a photo."""

import re
from dataclasses import dataclass
from urllib.parse import parse_qs

from cyclegan.model import DIRECTIONS, check_direction
from cyclegan.ui.results import Chain
from cyclegan.zoo import Zoo

MAX_STEPS = 3
"""Longest chain that the page builds."""

# In the browser, because only a click may write to the clipboard. Models added for a visit are nobody else's.
COPY_LINK = """async (model, direction, second, third, strength) => {
    const steps = [second, second && third].filter(Boolean);
    if ([model, ...steps].some((name) => name.startsWith("guest-"))) return "Added models have no link";
    const url = new URL(window.location.href);
    url.search = new URLSearchParams([["model", model], ["direction", direction], ["strength", strength],
        ...steps.map((step) => ["then", step])]);
    url.hash = "";
    window.history.replaceState(null, "", url);
    try {
        await navigator.clipboard.writeText(url.toString());
        return "Link copied";
    } catch {
        return "The link is in the address bar";
    }
}"""
COPY_LABEL = "Copy link to these settings"
COPIED_FOR_A_WHILE = f"() => new Promise((resolve) => setTimeout(() => resolve('{COPY_LABEL}'), 2500))"
THE_LINK = "() => window.location.search"


def as_step(model: str, direction: str) -> str:
    """A step of a chain as one word: ``"glasses:A2B"``."""
    return f"{model}:{direction}"


def from_step(step: str) -> tuple[str, str]:
    """The inverse of `as_step`; nonsense gives a model or direction that does not exist."""
    model, _, direction = step.rpartition(":")
    return model, direction


@dataclass(frozen=True)
class Settings:
    """What a link restores."""

    chain: Chain
    strength: int
    """Percent."""


def parse(search: str, zoo: Zoo) -> Settings | None:
    """The settings in the query of a link; None without a model in it.

    Raises UnknownModelError and UnknownDirectionError. Anything else that makes no sense is ignored.
    """
    found = parse_qs((search or "").lstrip("?"), max_num_fields=32)
    if "model" not in found:
        return None
    chain = [(found["model"][0], found.get("direction", [DIRECTIONS[0]])[0])]
    for step in found.get("then", [])[: MAX_STEPS - 1]:
        chain.append(from_step(step))
    for name, direction in chain:
        zoo.config(name)
        check_direction(direction)
    strength = found.get("strength", ["100"])[0]
    return Settings(tuple(chain), min(int(strength), 100) if re.fullmatch("[0-9]{1,3}", strength) else 100)
