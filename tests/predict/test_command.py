from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from PIL import Image
from rich.cells import cell_len
from typer.testing import CliRunner, Result

import featbench
from featbench.cli.main import app
from featbench.data.given import as_split
from featbench.predict.images import find_images
from featbench.predict.output import write_predictions
from featbench.results.artifacts import load_predictions
from featbench.terminal import visible
from tests.predict.conftest import Kept
from tests.tiny import Recorder, image_folder


def invoke(*arguments: str | Path, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(app, ["predict", *map(str, arguments), "--device", "cpu"], input=stdin)


def first_images(kept: Kept, count: int) -> tuple[list[Path], list[str]]:
    """Return some test images, and what the run said of them."""
    said = load_predictions(kept.folder, kept.rows.fingerprint[0])[:count]
    assert kept.images is not None
    return [kept.images / name for name in said.id], said.predicted.tolist()


def test_csv_has_a_line_for_each_image_and_class(photos: Kept) -> None:
    files, predicted = first_images(photos, 3)
    result = invoke(photos.folder, *files, "--format", "csv", "--top", "2")
    assert result.exit_code == 0, result.output
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert [row["image"] for row in rows] == [str(file) for file in files for _ in range(2)]
    assert [row["rank"] for row in rows] == ["1", "2"] * 3
    assert [row["class"] for row in rows[::2]] == predicted
    assert "linear_svc/resnet20/layer3, 3 images" in result.stderr


def test_json_is_one_document(photos: Kept) -> None:
    files, predicted = first_images(photos, 3)
    result = invoke(photos.folder, *files, "--format", "json", "--quiet")
    assert (result.exit_code, result.stderr) == (0, "")
    found = json.loads(result.stdout)
    assert [entry["image"] for entry in found] == [str(file) for file in files]
    assert [entry["top"][0]["class"] for entry in found] == predicted
    assert json.loads(invoke(photos.folder, photos.folder / "gone.jpg", "--format", "json").stdout) == []


def test_numbers_are_those_of_python(digits: Kept, tmp_path: Path) -> None:
    path = tmp_path / "grey.png"
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) * 4).save(path)
    for name in ("random_forest/resnet20/layer3", "linear_head/resnet20"):
        expected = featbench.load_model(digits.folder, name, device="cpu").predict_proba(path)[0]
        result = invoke(digits.folder, path, "--model", name, "--format", "json", "--top", "10")
        (entry,) = json.loads(result.stdout)
        got = {each["class"]: each["probability"] for each in entry["top"]}
        np.testing.assert_allclose([got[name] for name in "0123456789"], expected, rtol=1e-5)
        values = [each["probability"] for each in entry["top"]]
        assert values == sorted(values, reverse=True)


def test_folders_and_a_list_on_stdin(photos: Kept) -> None:
    assert photos.images is not None
    reds = sorted((photos.images / "red").iterdir())
    by_folder = invoke(photos.folder, photos.images / "red")
    by_list = invoke(photos.folder, "-", stdin="\n".join(map(str, [*reds, ""])).encode())
    assert by_folder.exit_code == by_list.exit_code == 0
    assert by_folder.stdout == by_list.stdout
    assert [line.split()[0] for line in by_folder.stdout.splitlines()] == [str(path) for path in reds]


def test_what_cannot_be_read_is_named_and_the_others_go_on(photos: Kept, tmp_path: Path) -> None:
    (good, *_), _ = first_images(photos, 1)
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "empty").mkdir()
    places = [tmp_path / "text.jpg", tmp_path / "empty", tmp_path / "gone.png", good]
    result = invoke(photos.folder, *places)
    assert result.exit_code == 1
    assert [line.split()[0] for line in result.stdout.splitlines()] == [str(good)]
    assert "text.jpg cannot be read: it holds no image" in result.stderr
    assert "gone.png cannot be read: No such file" in result.stderr
    assert "empty: no file in this folder ends in .jpg" in result.stderr
    assert "Traceback" not in result.stderr
    assert "Exit" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["{results}", "x.jpg", "--model", "linear_sv"], 2, "unknown --model 'linear_sv'; did you mean 'linear_svc/"),
        (["{results}", "x.jpg", "--top", "0"], 2, "--top"),
        (["{results}", "x.jpg", "--format", "xml"], 2, "xml"),
        (["{results}"], 2, "IMAGE"),
        (["nowhere", "x.jpg"], 1, "there is no results.csv at nowhere"),
    ],
)
def test_a_wrong_command_line(photos: Kept, arguments: list[str], code: int, message: str) -> None:
    result = invoke(*(argument.format(results=photos.folder) for argument in arguments))
    assert (result.exit_code, result.stdout) == (code, "")
    assert message in result.stderr


@pytest.mark.parametrize("url", ["https://a.org//b/c.jpg?d=1", "s3://bucket/cat.jpg", "file:///home/cat.jpg"])
def test_a_url_is_named_as_it_was_given(photos: Kept, url: str) -> None:
    for arguments in ([photos.folder, url], [url, "cat.jpg"]):
        result = invoke(*arguments)
        assert (result.exit_code, result.stdout) == (2, "")
        assert f"{url} is a URL, and URLs are not fetched; download what is there" in " ".join(result.stderr.split())


def test_a_url_on_stdin_is_left_out_by_name(photos: Kept) -> None:
    assert photos.images is not None
    files, _ = first_images(photos, 1)
    result = invoke(photos.folder, "-", stdin=f"https://a.org/b.jpg\n{files[0]}\n".encode())
    assert result.exit_code == 1
    assert "https://a.org/b.jpg is a URL, and URLs are not fetched; download it" in result.stderr
    assert str(files[0].name) in result.stdout


def test_a_class_name_of_any_script_in_every_format(tmp_path: Path) -> None:
    names = ("🐜 ant", "<b>bee", "نحلة", 'a,"b"', "[red]")
    root = image_folder(tmp_path / "photos", classes=("red", "green"), per_class=6)
    for old, new in zip(("red", "green"), names[:2], strict=True):
        (root / old).rename(root / new)
    for new in names[2:]:
        shutil.copytree(root / names[0], root / new)
    featbench.run(
        root,
        results=tmp_path / "r",
        cache=tmp_path / "c",
        device="cpu",
        overrides=[
            'backbones=[{name="pixels"}]',
            "baselines=[]",
            'evaluate={classifiers=["random_forest"],selection="none"}',
        ],
    )
    image = next((root / "<b>bee").iterdir())
    options = ("--model", "random_forest/pixels/pixels", "--top", "5")
    table = invoke(tmp_path / "r", image, *options).stdout
    rows = list(csv.DictReader(io.StringIO(invoke(tmp_path / "r", image, *options, "--format", "csv").stdout)))
    (entry,) = json.loads(invoke(tmp_path / "r", image, *options, "--format", "json").stdout)
    assert {row["class"] for row in rows} == {each["class"] for each in entry["top"]} == set(names)
    assert all(name in table for name in names)


@pytest.mark.parametrize("columns", [20, 40, 80, 200])
def test_a_table_fits_the_terminal(photos: Kept, columns: int) -> None:
    assert photos.images is not None
    texts: list[str] = []
    files, _ = find_images([photos.images])
    model = featbench.load_model(photos.folder)
    write_predictions(
        model, as_split(files[:2]), Recorder(), write=texts.append, format_="table", top=3, columns=columns
    )
    lines = "".join(texts).splitlines()
    assert len(lines) >= 2
    if columns >= 40:
        assert max(map(cell_len, lines)) <= columns
    for name in model.classes:
        assert "".join(texts).count(name) >= 2


def test_names_are_data_in_files_and_shown_safely_on_a_terminal(photos: Kept) -> None:
    name = '\x1b]0;t\x07\u202e\x9b2J"a",\n=1+1\u2028\ud800'
    shown = '\\x1b]0;t\\x07\\u202e\\x9b2J"a",\\x0a=1+1\\u2028\\ud800'
    files, _ = first_images(photos, 1)
    model = featbench.load_model(photos.folder)
    model.classes = [name, name, name]

    def written(format_: Literal["table", "csv", "json"], columns: int | None) -> str:
        texts: list[str] = []
        images = as_split(files)
        write_predictions(model, images, Recorder(), write=texts.append, format_=format_, top=1, columns=columns)
        return "".join(texts)

    assert next(csv.DictReader(io.StringIO(written("csv", None), newline="")))["class"] == name
    assert next(csv.DictReader(io.StringIO(written("csv", 200))))["class"] == shown
    for columns in (None, 400):
        assert shown in written("table", columns)
        assert visible(written("json", columns)) == written("json", columns)
        assert json.loads(written("json", columns))[0]["top"][0]["class"] == name


@pytest.mark.parametrize(
    ("places", "stdin", "message"),
    [
        (["-", "{good}"], b"a\0b.jpg\n\0", r"a\x00b.jpg: no path has a NUL character; give a path a line"),
        (["a" * 5000, "{good}"], None, "a...: its path is longer than this system allows"),
        (["b/" * 3000, "{good}"], None, "/...: its path is longer than this system allows"),
        (["-", "{good}"], b"c" * 9000, "c...: its path is longer than this system allows"),
    ],
)
def test_a_path_that_no_file_can_have_stops_no_other(
    photos: Kept, places: list[str], stdin: bytes | None, message: str
) -> None:
    (good, *_), _ = first_images(photos, 1)
    result = invoke(photos.folder, *(place.format(good=good) for place in places), stdin=stdin)
    assert result.exit_code == 1
    assert [line.split()[0] for line in result.stdout.splitlines()] == [str(good)]
    (said,) = [line for line in result.stderr.splitlines() if message in line]
    assert len(said) < 400


def test_a_list_from_closed_standard_input_is_an_error(photos: Kept) -> None:
    command = f"{sys.executable} -m featbench predict {photos.folder} - --device cpu <&-"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == ("featbench: standard input is closed; - reads a list of images from it, a path a line\n")


def test_the_reader_of_a_pipe_may_leave(photos: Kept) -> None:
    command = [sys.executable, "-m", "featbench", "predict", photos.folder, photos.images, "--device", "cpu"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as done:
        assert done.stdout is not None
        assert done.stderr is not None
        done.stdout.close()
        errors = done.stderr.read().decode()
    assert "Traceback" not in errors
    assert "BrokenPipe" not in errors
    assert done.returncode != 0
