from __future__ import annotations

import html
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from featbench.report.page import breakable, script_json, write_page
from tests.report.folders import HOSTILE, MODELS, report, results_folder
from tests.report.folders import read as read_results

MAX_BYTES = 8_000_000


class Reader(HTMLParser):
    """Collects the tags, the scripts and the visible text of a page as a browser would see them."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.scripts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        (self.scripts if self.cdata_elem == "script" else self.text).append(data)


def read(page: Path) -> Reader:
    reader = Reader()
    reader.feed(page.read_text("utf-8"))
    return reader


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    folder = results_folder(tmp_path_factory.mktemp("page") / "results", classes=HOSTILE)
    return read(report(folder, pytest.fail))


def test_names_from_data_are_only_text(hostile: Reader) -> None:
    assert [tag for tag, _ in hostile.tags].count("script") == 3
    assert not [attributes for _, attributes in hostile.tags for name in attributes if name.startswith("on")]
    assert "b" not in {tag for tag, _ in hostile.tags}
    text = "".join(hostile.text)
    for name in HOSTILE:
        assert name in text


def test_the_data_of_the_figures_is_json_that_says_the_same(hostile: Reader) -> None:
    data = json.loads(next(script for script in hostile.scripts if script.startswith("{")))
    assert [line[0] for line in data["details"]["0000000000000000"]["classes"]] == list(HOSTILE)
    for _, n_images, *measures in data["details"]["0000000000000000"]["classes"]:
        assert n_images > 0
        assert len(measures) == 9  # recall, precision and F1, each with its interval
        for value, low, high in zip(measures[::3], measures[1::3], measures[2::3], strict=True):
            assert low is high is None or low <= value <= high
    assert set(data["maps"][0]["labels"]) == set(HOSTILE)
    assert [model["accuracy"] for model in data["models"]] == pytest.approx([m["accuracy"] for m in MODELS], abs=0.01)
    assert data["history"][0]["best_epoch"] == 2  # of validation accuracies 0.5, 0.9, 0.8


def test_the_map_of_the_recommended_features_is_first_and_never_left_out(tmp_path: Path) -> None:
    path = results_folder(tmp_path / "results", n_test=6)
    header, *lines = (path / "maps.csv").read_text().splitlines()
    others = [line.replace("layer3", "layer1").replace("cafe", "beef") for line in lines]
    (path / "maps.csv").write_text("\n".join([header, *others, *lines, ""]))
    for n_bytes, layers in ((10**6, ["layer3", "layer1"]), (1, ["layer3"])):
        write_page(read_results(path, pytest.fail), tmp_path / "page.html", map_bytes=n_bytes)
        scripts = read(tmp_path / "page.html").scripts
        data = json.loads(next(script for script in scripts if script.startswith("{")))
        assert [one["layer"] for one in data["maps"]] == layers


def test_the_page_asks_for_nothing(hostile: Reader) -> None:
    addresses = [a[key] for _, a in hostile.tags for key in ("src", "href", "srcset", "data", "action") if key in a]
    assert addresses
    assert all(address is not None and address.startswith(("#", "data:image/jpeg;base64,")) for address in addresses)
    policies = [a["content"] for tag, a in hostile.tags if tag == "meta" and a.get("http-equiv")]
    assert policies
    assert policies[0] is not None
    assert policies[0].startswith("default-src 'none'")


def test_what_would_turn_the_text_around_is_shown(tmp_path: Path) -> None:
    name, shown = "a\u202eb\x9b\u2067", r"a\u202eb\x9b\u2067"
    reader = read(report(results_folder(tmp_path / "results", classes=(name, "c", "d")), pytest.fail))
    assert shown in "".join(reader.text)
    assert not set("".join([*reader.text, *reader.scripts[:1]])) & set(name[1::2])
    data = json.loads(next(script for script in reader.scripts if script.startswith("{")))
    assert shown in data["maps"][0]["labels"]


@pytest.mark.parametrize("text", ["</script>", "<!--<script>", "&lt;", 'quote " and \\ backslash'])
def test_json_in_a_script_block_cannot_end_it(text: str) -> None:
    written = script_json({"key": [text, float("nan"), float("inf")]})
    assert not set(written) & set("<>&")
    assert json.loads(written) == {"key": [text, None, None]}


def test_the_accuracy_table_is_readable_without_scripts(tmp_path: Path) -> None:
    folder = results_folder(tmp_path / "results")
    page = report(folder, pytest.fail).read_text("utf-8")
    table = page[page.index('<table class="accuracy') : page.index("</table>")].replace("<wbr>", "")
    words = " ".join(html.unescape(re.sub(r"<[^>]+>", " ", table)).split())
    assert "linear_svc random_forest finetune layer3 256 features 0.9000 ★" in words
    assert "0.9000 ★ best by validation 0.800–1.000 0.6000 ▾ worse than the best 0.500–0.700" in words
    assert "not converged" in words


def test_what_only_describes_a_layer_has_no_column_of_its_own(tmp_path: Path) -> None:
    models = [
        {**MODELS[0], "layer": layer, "pooling": pooling, "weights": weights, "backbone": backbone}
        for backbone, weights in (("resnet18", "A<b>"), ("resnet50", "B"))
        for layer, pooling in (("layer3", "avg"), ("layer4", "max"))
    ]
    page = report(results_folder(tmp_path / "results", models=models), pytest.fail).read_text("utf-8")
    table = page[page.index('<table class="accuracy') : page.index("</table>")]
    heads = re.findall(r'<th scope="col"[^>]*>(.*?)</th>', table)
    assert [re.sub(r"<[^>]+>", "", head) for head in heads] == [
        *("backbone", "layer, weights, pooling, feature dim", "linear_svc")
    ]
    first = html.unescape(re.sub(r"<[^>]+>", " ", re.findall(r'<th scope="row".*?</th>', table)[0]))
    assert first.split() == ["layer3", "resnet18", "A<b>", "avg", "256", "features"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("linear_svc", "linear_<wbr>svc"),
        ("a:b.c-d/e", "a:<wbr>b.<wbr>c-<wbr>d/<wbr>e"),
        ("<b>_&", "&lt;b&gt;_<wbr>&amp;"),
    ],
)
def test_names_break_where_a_reader_would_break_them(name: str, expected: str) -> None:
    assert breakable(name) == expected


def test_a_model_that_never_predicts_a_class_is_marked_with_the_class(tmp_path: Path) -> None:
    models = [{**MODELS[0], "never_predicted": 1}, MODELS[1] | {"never_predicted": 0}, MODELS[4]]
    folder = results_folder(tmp_path / "results", classes=("ant", "<bee>", "cat"), models=models)
    page = read(report(folder, pytest.fail))
    text = " ".join("".join(page.text).split())
    assert "linear_svc/resnet18/layer3 (validation accuracy 0.9500): <bee> (20 test images)." in text  # the advice
    assert text.count("! never predicts <bee> (20 test images)") == 1  # one cell
    assert "never predicts a class that the test has; recommended only where every model does so" in text  # the key
    assert "never predicts <bee> (20 test images)" in [attributes.get("title") for _, attributes in page.tags]
    data = json.loads(next(script for script in page.scripts if script.startswith("{")))
    assert [model["verdict"] for model in data["models"]] == ["tied", "best", "better"]
    facts = dict(data["details"]["0000000000000000"]["facts"])
    assert facts["never predicted"] == "<bee> (20 test images)"


def test_the_page_of_many_classes_and_models_stays_small(tmp_path: Path) -> None:
    classes = [f"class {number} 🐝 <b>" for number in range(200)]
    models = [{**MODELS[0], "layer": f"layer{n}", "val_accuracy": 0.5 + n / 100} for n in range(8)]
    folder = results_folder(tmp_path / "large", classes=classes, models=models, n_test=400)
    page = tmp_path / "page.html"
    write_page(read_results(folder, pytest.fail), page, detail_bytes=100_000)
    assert page.stat().st_size < MAX_BYTES
    text = page.read_text("utf-8")
    assert "more models would make this page too large" in text
    assert text.count('data-model="') < len(models)


def test_a_page_is_made_without_torch(tmp_path: Path) -> None:
    folder = results_folder(tmp_path / "results")
    script = f"""
import sys
from pathlib import Path
from featbench.runs.report import report_folders
report_folders([Path({str(folder)!r})], print)
print(*sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "plotly" in loaded
    assert not loaded & {"torch", "torchvision", "lightning", "matplotlib.pyplot"}
