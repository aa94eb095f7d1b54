"""Links that restore the settings of the Photo tab; never a photo."""

from dataclasses import dataclass
from urllib.parse import parse_qs

from cyclegan.model import DIRECTIONS
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
COPIED_FOR_A_WHILE = "() => new Promise((resolve) => setTimeout(() => resolve('Copy link to these settings'), 2500))"
THE_LINK = "() => window.location.search"


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
        name, _, direction = step.rpartition(":")
        chain.append((name, direction))
    for name, direction in chain:
        check_direction(direction)
        if name not in zoo.entries:
            zoo.config(name)
    strength = found.get("strength", ["100"])[0]
    return Settings(tuple(chain), min(int(strength), 100) if strength.isdecimal() else 100)
