"""The page as a person meets it, in a real browser. `pytest -m browser`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.report.folders import HOSTILE, MODELS, report, results_folder

pytestmark = pytest.mark.browser
CHROMIUM = Path("/usr/bin/chromium")
SIZES = {"desktop": (1265, 900), "phone": (390, 844)}  # 1,280 px less a scrollbar, which headless browsers hide


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM.exists():
        pytest.skip(f"there is no {CHROMIUM}")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = results_folder(tmp_path_factory.mktemp("page") / "results", classes=HOSTILE)
    return report(folder, pytest.fail)


class Visit:
    """An open page, with what it said and asked for."""

    def __init__(self, browser: Any, page: Path, size: str = "desktop", **options: Any) -> None:
        width, height = SIZES[size]
        self.context = browser.new_context(viewport={"width": width, "height": height}, **options)
        self.page = self.context.new_page()
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.errors.append(message.text))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(page.as_uri(), timeout=120_000)
        if options.get("java_script_enabled", True):
            self.page.wait_for_selector("html[data-ready=yes]", timeout=120_000)

    def column(self, number: int) -> list[str]:
        """The values of a column of the accuracy table, from above."""
        cells = self.page.locator(f"table.accuracy tbody tr > :nth-child({number})")
        return [cells.nth(i).get_attribute("data-value") for i in range(cells.count())]


@pytest.fixture
def visit(browser: Any, hostile: Path) -> Iterator[Any]:
    visits: list[Visit] = []

    def open_page(page: Path = hostile, **options: Any) -> Visit:
        visits.append(Visit(browser, page, **options))
        return visits[-1]

    yield open_page
    for opened in visits:
        opened.context.close()


@pytest.mark.parametrize("size", list(SIZES))
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_opens_without_an_error_or_a_request_and_fits_the_screen(visit: Any, size: str, scheme: str) -> None:
    opened = visit(size=size, color_scheme=scheme)
    assert opened.errors == []
    assert [url for url in opened.requests if not url.startswith(("file:", "data:"))] == []
    assert opened.page.title() == "pets · featbench"  # no name from the data ran as a script
    assert opened.page.evaluate("document.documentElement.scrollWidth") == SIZES[size][0]
    figures = opened.page.locator(".figure")
    assert figures.count() == opened.page.locator(".figure .main-svg >> nth=0").count() * figures.count() > 4
    dark = opened.page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(246, 247, 249)"
    assert dark == (scheme == "dark")


CLASSIFIERS = ("linear_svc", "svm_rbf", "random_forest", "logistic_regression", "knn")
NETWORKS = ("linear_head", "finetune", "scratch", "partial", "finetune:label")
SHORT = {"resnet20_cifar10": ("layer1", "layer2", "layer3"), "pixels": ("pixels",)}
LONG = {
    "tf_efficientnet_lite0_with_a_long_name.in1k_ft_something_384": ("features.denseblock4.denselayer16.conv2",),
    "python:a_module_of_my_own:a_network_with_options": ("blocks.11.mlp.activation", "penultimate"),
}


@pytest.mark.parametrize(
    ("backbones", "n_methods"), [(SHORT, 3), (SHORT, 5), (LONG, 5)], ids=["default", "ten", "long"]
)
def test_no_column_of_the_accuracy_table_is_outside_the_screen(
    visit: Any, tmp_path: Path, backbones: dict[str, tuple[str, ...]], n_methods: int
) -> None:
    common = {"accuracy": 0.9, "val_accuracy": 0.9}
    models: list[dict[str, Any]] = [
        *(
            common | {"method": method, "backbone": backbone, "layer": layer, "weights": backbone[:12]}
            for backbone, layers in backbones.items()
            for layer in layers
            for method in CLASSIFIERS[:n_methods]
        ),
        *(
            common | {"method": method, "backbone": next(iter(backbones)), "layer": None, "kind": "baseline"}
            for method in NETWORKS[:n_methods]
        ),
    ]
    folder = results_folder(tmp_path, classes=[f"{letter * 80}" for letter in "abc"], models=models)
    opened = visit(page=report(folder, pytest.fail))
    heads = opened.page.locator("table.accuracy tr.columns th")
    assert heads.count() == 2 + 2 * n_methods
    rights = heads.evaluate_all("all => all.map(head => head.getBoundingClientRect().right)")
    assert max(rights) <= SIZES["desktop"][0]
    frame = opened.page.locator(".scroll", has=opened.page.locator("table.accuracy"))
    assert frame.evaluate("frame => frame.scrollWidth - frame.clientWidth") == 0  # nothing to scroll to
    assert opened.page.evaluate("document.documentElement.scrollWidth") == SIZES["desktop"][0]


def test_columns_sort_by_mouse_and_by_keyboard(visit: Any) -> None:
    opened = visit()
    heads = opened.page.locator("table.accuracy tr.columns th")
    names = heads.all_inner_texts()
    number = next(i for i, name in enumerate(names) if name.startswith("linear_svc")) + 1
    heads.nth(number - 1).locator("button").click()
    assert opened.column(number) == ["0.9", "0.85"]
    assert heads.nth(number - 1).get_attribute("aria-sort") == "descending"
    heads.nth(number - 1).locator("button").press("Enter")
    assert opened.column(number) == ["0.85", "0.9"]
    layer = next(i for i, name in enumerate(names) if name.startswith("layer")) + 1
    heads.nth(layer - 1).locator("button").press("Space")
    assert opened.column(layer) == ["layer3", "layer4"]
    assert heads.nth(number - 1).get_attribute("aria-sort") is None


def test_a_model_is_chosen_by_list_and_by_its_number(visit: Any) -> None:
    opened = visit()
    name = opened.page.locator("#model-name")
    assert name.inner_text() == "linear_svc/resnet18/layer3"
    opened.page.select_option("#model-choice", label="random_forest/resnet18/layer4")
    assert name.inner_text() == "random_forest/resnet18/layer4"
    recalls = opened.page.locator("#class-table tbody tr").all_inner_texts()
    assert len(recalls) == len(HOSTILE)
    assert all(any(text.startswith(known.split()[0]) for known in HOSTILE) for text in recalls)
    opened.page.click("a[data-model='0000000000000004']")
    assert name.inner_text() == "finetune/resnet18"
    assert opened.page.locator("#model-choice").evaluate("e => document.activeElement === e")
    assert opened.errors == []


def test_mistakes_are_ordered_and_filtered(visit: Any) -> None:
    opened = visit()
    articles = opened.page.locator("#mistake-list article")
    shares = [float(articles.nth(i).get_attribute("data-share")) for i in range(articles.count())]
    assert shares == sorted(shares, reverse=True)
    opened.page.select_option("#mistake-order", "sure")
    sure = [float(articles.nth(i).get_attribute("data-sure")) for i in range(articles.count())]
    assert sure == sorted(sure, reverse=True)
    opened.page.select_option("#mistake-model", "0000000000000000")
    shown = opened.page.locator("#mistake-list article:visible")
    assert 0 < shown.count() < len(sure)
    assert all("0000000000000000" in shown.nth(i).get_attribute("data-wrong") for i in range(shown.count()))
    widths = opened.page.locator("#mistake-list img").evaluate_all("all => all.map(image => image.naturalWidth)")
    assert set(widths) == {12}


def test_every_choice_draws_its_figure(visit: Any) -> None:
    opened = visit()
    for choice in opened.page.locator("select").all():
        for value in choice.locator("option").evaluate_all("all => all.map(option => option.value)"):
            choice.select_option(value)
    assert opened.errors == []
    opened.page.select_option("#map-method", "pca")
    assert "50.0% of the variance" in opened.page.locator("#map-figure").inner_text()


def test_names_in_figures_are_text(visit: Any) -> None:
    opened = visit()
    legend = opened.page.locator("#map-figure .legendtext").all_text_contents()
    assert "نملة" in legend
    assert "🐜🐝" in legend
    assert any(text.startswith("<script>") for text in legend)
    assert any("<b>" in text for text in legend)


def test_without_scripts_the_table_is_there(visit: Any) -> None:
    opened = visit(java_script_enabled=False)
    text = opened.page.locator("table.accuracy").inner_text()
    assert "0.9000" in text
    assert "finetune" in text
    assert not opened.page.locator("#cost-axis").is_visible()
    assert opened.page.locator("#class-table tbody tr").count() == len(HOSTILE)


def test_on_paper_it_is_light_and_whole(visit: Any, tmp_path: Path) -> None:
    opened = visit(color_scheme="dark")
    opened.page.pdf(path=tmp_path / "page.pdf")
    assert (tmp_path / "page.pdf").stat().st_size > 20_000
    opened.page.emulate_media(media="print", color_scheme="light")
    assert not opened.page.locator("nav").is_visible()


def test_the_page_of_one_row_and_two_hundred_classes(visit: Any, tmp_path: Path) -> None:
    folder = results_folder(tmp_path, classes=[f"class {n}" for n in range(200)], models=MODELS[:1], n_test=400)
    opened = visit(page=report(folder, pytest.fail))
    assert opened.errors == []
    assert opened.page.locator("#class-table tbody tr").count() == 200
    opened.page.select_option("#map-class", "class 7")
    assert opened.errors == []
