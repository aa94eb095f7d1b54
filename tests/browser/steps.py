"""What a visitor does and sees, as the tests say it."""

from playwright.sync_api import Page, expect

expect.set_options(timeout=15_000)


def upload(page: Page, path, hint: str = "faces found") -> None:
    page.locator("#photo input[type=file]").set_input_files(path)
    expect(page.locator("#hint")).to_contain_text(hint)


def button(page: Page):
    return page.get_by_role("button", name="Translate", exact=True)


def translate(page: Page) -> None:
    button(page).click()


def choose(page: Page, label: str) -> None:
    page.get_by_role("radio", name=label).check()


def cards(page: Page):
    return page.locator("#details section")


def toast(page: Page):
    return page.get_by_test_id("toast-text")


def until(page: Page, condition) -> None:
    """Wait for something that happens on the server and does not show in the page."""
    for _ in range(200):
        if condition():
            return
        page.wait_for_timeout(50)
    raise AssertionError("It did not happen within 10 seconds.")


def no_sideways_scroll(page: Page) -> bool:
    return page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def click_photo(page: Page, x: float, y: float) -> None:
    """Click at fractions of the shown picture (which keeps its shape of 4:3 inside the frame)."""
    picture = page.locator("#photo .image-frame img")
    box = picture.bounding_box()
    width, height = min(box["width"], box["height"] * 4 / 3), min(box["height"], box["width"] * 3 / 4)
    left, top = (box["width"] - width) / 2, (box["height"] - height) / 2
    picture.click(position={"x": left + x * width, "y": top + y * height})
