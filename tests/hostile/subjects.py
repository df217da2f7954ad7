"""What is mutated: a finished run of the real program, and commands that read each kind of its files."""

from __future__ import annotations

import csv
import io
import json
import random
import shutil
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import tomli_w
from PIL import Image

from featbench.fingerprint import fingerprint, hash_file
from tests.hostile.children import Call, Outcome
from tests.hostile.mutate import CODE, declare_png_size, mutate_array, mutate_bytes, mutate_json, odd_value
from tests.tiny import image_folder

CLASSIFIERS = (
    "linear_svc", "svm_rbf", "random_forest", "logistic_regression", "knn", "ridge", "lda", "gaussian_nb",
    "gradient_boosting",
)  # fmt: skip
_GRIDS: dict[str, dict[str, list[Any]]] = {
    "linear_svc": {"C": [1e-3]},
    "svm_rbf": {"C": [1.0], "gamma_scale": [0.3]},
    "random_forest": {"n_estimators": [5]},
    "gradient_boosting": {"max_iter": [3], "max_leaf_nodes": [7]},
    "knn": {"n_neighbors": [3], "weights": ["distance"]},
}
_CPU = ("--device", "cpu", "--offline")
_EVIL = "import pathlib\npathlib.Path({!r}).touch()\ndef make():\n    raise SystemExit(9)\n"


@dataclass(frozen=True)
class Subject:
    """A folder with images, a finished run of them, its cache, and copies of an image in many formats."""

    home: Path

    @property
    def executed(self) -> Path:
        """A file that is there once code of a results folder was executed."""
        return self.home / "executed"

    @property
    def image(self) -> Path:
        """An image that every model can be asked about."""
        return self.home / "photos" / "red" / "00.jpg"

    def experiment(self) -> dict[str, Any]:
        """Return the experiment as nested tables."""
        return {
            "name": "hostile",
            "dataset": {"name": "folder", "root": str(self.home / "photos")},
            "backbones": [
                {"name": "resnet20_cifar10", "layers": ["layer1", "penultimate"]},
                {"name": "pixels", "image_size": 8},
            ],
            "evaluate": {
                "classifiers": list(CLASSIFIERS),
                "grids": _GRIDS,
                "steps": [[], ["power", "pca:5"]],
                "fusions": [["resnet20_cifar10/layer1", "pixels/pixels"]],
            },
            "baselines": [{"strategy": "linear_head", "epochs": 1}, {"strategy": "scratch", "epochs": 1}],
        }

    def linear_experiment(self) -> dict[str, Any]:
        """Return the same with one classifier, as features come."""
        grids = {"linear_svc": _GRIDS["linear_svc"]}
        return self.experiment() | {"evaluate": {"classifiers": ["linear_svc"], "grids": grids}, "baselines": []}

    def copy(self, to: Path, what: str) -> Path:
        """Copy the run or its cache, and leave code beside what is read."""
        shutil.copytree(self.home / what, to / what)
        for folder in (to, to / what):
            (folder / "evil.py").write_text(_EVIL.format(str(self.executed)))
        return to / what


def build(home: Path, run: Callable[[Call], Outcome]) -> Subject:
    """Make the subject by the real program; a folder that holds it already is taken as it is."""
    subject = Subject(home)
    if (home / "complete").exists():
        return subject
    shutil.rmtree(home, ignore_errors=True)
    image_folder(home / "photos", per_class=8)
    content = subject.experiment()
    (home / "hostile.toml").write_text(tomli_w.dumps(content))
    (home / "linear.toml").write_text(tomli_w.dumps(subject.linear_experiment()))
    done = run(Call(("run", "hostile.toml", "--results", "results", "--cache", "cache", *_CPU), home))
    if done.code:
        raise RuntimeError(done.stderr.decode())
    (home / "images").mkdir()
    with Image.open(subject.image) as image:
        for ending, options in FORMATS.items():
            image.save(home / "images" / f"x{ending}", **options)
        image.convert("I;16").save(home / "images" / "x16.png")
    (home / "complete").touch()
    return subject


FORMATS: dict[str, dict[str, Any]] = {
    ".jpg": {}, ".progressive.jpg": {"progressive": True}, ".png": {}, ".webp": {}, ".gif": {}, ".bmp": {}, ".ppm": {},
    ".tif": {}, ".lzw.tif": {"compression": "tiff_lzw"}, ".avif": {}, ".jp2": {},
}  # fmt: skip


@dataclass(frozen=True)
class Prepared:
    """A mutated input: the command that reads it, and a check of what it answered ("" where that is right)."""

    call: Call
    wrong: Callable[[Outcome], str] = lambda outcome: ""


def card(rng: random.Random, subject: Subject, work: Path) -> Prepared:
    """Change a card, and sign it anew as whoever sends a folder can."""
    folder = subject.copy(work, "results")
    path = rng.choice(sorted((folder / "models").glob("*.json")))
    if rng.random() < 0.2:
        path.write_bytes(mutate_bytes(rng, path.read_bytes()))
        return _predict(subject, folder, path, rng)
    content = json.loads(path.read_text())
    del content["card_hash"]
    if rng.random() < 0.2:
        part = rng.choice([content, *content["fused_with"]])
        part |= {"backbone": rng.choice(CODE), "weights": rng.choice(("random", "none", "evil.pth"))}
    else:
        content = mutate_json(rng, content)
    signed = {**content, "card_hash": fingerprint_or_none(content)} if isinstance(content, dict) else content
    path.write_text(json.dumps(signed))
    return _predict(subject, folder, path, rng)


def fingerprint_or_none(content: Any) -> str | None:
    """Sign a card where that can be done; JSON knows no NaN."""
    with suppress(ValueError):
        return fingerprint(content)
    return None


def skops(rng: random.Random, subject: Subject, work: Path) -> Prepared:
    """Change a kept classifier: its graph of objects, one of its arrays, or its bytes."""
    folder = subject.copy(work, "results")
    path = rng.choice(sorted((folder / "models").glob("*.skops")))
    if rng.random() < 0.15:
        path.write_bytes(mutate_bytes(rng, path.read_bytes()))
    else:
        with zipfile.ZipFile(path) as file:
            parts = {name: file.read(name) for name in file.namelist()}
        name = rng.choice(sorted(parts)) if rng.random() < 0.7 else "schema.json"
        if name.endswith(".npy"):
            array = np.load(io.BytesIO(parts[name]), allow_pickle=False)
            buffer = io.BytesIO()
            np.save(buffer, mutate_array(rng, array), allow_pickle=False)
            parts[name] = buffer.getvalue()
        elif name == "schema.json":
            parts[name] = json.dumps(mutate_json(rng, json.loads(parts[name]))).encode()
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for part, content in parts.items():
                file.writestr(part, content)
    return _predict(subject, folder, _sign(path), rng)


def safetensors(rng: random.Random, subject: Subject, work: Path) -> Prepared:
    """Change a kept network: its header, or its bytes."""
    folder = subject.copy(work, "results")
    path = rng.choice(sorted((folder / "models").glob("*.safetensors")))
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    if rng.random() < 0.6:
        header = json.dumps(mutate_json(rng, json.loads(content[8 : 8 + size]))).encode()
        content = len(header).to_bytes(8, "little") + header + content[8 + size :]
    else:
        content = mutate_bytes(rng, content)
    path.write_bytes(content)
    return _predict(subject, folder, _sign(path), rng)


def results_csv(rng: random.Random, subject: Subject, work: Path) -> Prepared:
    """Change a cell, a column or the bytes of results.csv or of another table of a results folder."""
    folder = subject.copy(work, "results")
    others = ["current.csv", *(str(p.relative_to(folder)) for p in sorted((folder / "predictions").iterdir()))]
    path = folder / ("results.csv" if rng.random() < 0.8 else rng.choice(others))
    if rng.random() < 0.2:
        path.write_bytes(mutate_bytes(rng, path.read_bytes()))
    else:
        rows = list(csv.reader(io.StringIO(path.read_text())))
        what = rng.randrange(8)
        row = rng.choice(rows)
        if what == 0:
            place = rng.randrange(len(rows[0]))
            rows = [[*r[:place], *r[place + 1 :]] for r in rows]
        elif what == 1:
            rows.append(row)
        elif what == 2:
            rows.remove(row)
        else:
            value = odd_value(rng)
            row[rng.randrange(len(row))] = value if isinstance(value, str) else json.dumps(value)
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        path.write_text(text.getvalue(), errors="surrogateescape")
    command = rng.choice(("models", "models", "predict", "report"))
    if command == "models":
        return Prepared(Call(("list", "models", str(folder)), work))
    if command == "report":
        return Prepared(Call(("report", str(folder)), work))
    return _predict(subject, folder, None, rng)


def hdf5(rng: random.Random, subject: Subject, work: Path) -> Prepared:
    """Forge or damage a cache file."""
    cache = subject.copy(work, "cache")
    path = rng.choice(sorted(cache.glob("*/*/*.h5")))
    forged = rng.random() < 0.6
    if forged:
        _forge(rng, path)
    else:
        path.write_bytes(mutate_bytes(rng, path.read_bytes()))
    command = rng.choice(("list", "verify", "prune", "evaluate"))
    if command == "evaluate":
        arguments = ("evaluate", str(subject.home / "linear.toml"), "--results", str(work / "again"))
        call = Call((*arguments, "--cache", str(cache), *_CPU), work)
        return Prepared(call, lambda outcome: "" if forged else _other_answers(subject, work / "again", outcome))
    extra = ("--yes", "--older-than", "36500") if command == "prune" else ()
    before = _features_of(subject, path)

    def wrong(outcome: Outcome) -> str:
        if command == "verify" and not forged and outcome.code == 0 and _features(path) != before:
            return "a damaged cache file was called whole"
        others = [file for file in cache.glob("*/*/*.h5") if file != path]
        if command == "prune" and len(others) != len(list((subject.home / "cache").glob("*/*/*.h5"))) - 1:
            return "prune removed a healthy file"
        return "" if (work / "evil.py").exists() else "prune removed a file of somebody's"

    return Prepared(Call(("cache", command, "--cache", str(cache), *extra), work), wrong)


def _forge(rng: random.Random, path: Path) -> None:
    with h5py.File(path, "r+") as file:
        layer = rng.choice(sorted(file["features"]))
        name = rng.choice(("labels", "ids", f"features/{layer}", "features"))
        what = rng.randrange(9)
        if what == 0:
            del file[name]
        elif what == 1:
            del file[name]
            file.create_group(name)
        elif what == 2:
            del file[name]
            file[name] = rng.choice((h5py.SoftLink("/labels"), h5py.SoftLink("/nowhere"), h5py.SoftLink("/" + name)))
        elif what == 3:
            del file[name]
            file[name] = h5py.ExternalLink(rng.choice((str(path), "/etc/passwd", "gone.h5")), rng.choice(("/", name)))
        elif what == 4:
            del file[name]
            shape = rng.choice(((), (0,), (1,), (10**12,), (10**6, 10**6), (3, 3, 3)))
            chunks = (10**6,) if shape == (10**12,) else (1000, 1000) if shape == (10**6, 10**6) else None
            kind = rng.choice(("f4", "f8", "i8", "S4", h5py.string_dtype(), "complex64", h5py.ref_dtype))
            file.create_dataset(name, shape, kind, chunks=chunks)
        elif what == 5:
            source = h5py.VirtualSource("/etc/passwd", "x", shape=(5,))
            layout = h5py.VirtualLayout((5,), "i8")
            layout[:] = source
            del file[name]
            file.create_virtual_dataset(name, layout)
        else:
            place = rng.choice((file, file, file[f"features/{layer}"]))
            key = rng.choice(sorted(place.attrs))
            value = odd_value(rng)
            if what == 6:
                del place.attrs[key]
            elif what == 7 and isinstance(place.attrs[key], str):
                with suppress(ValueError):
                    value = json.dumps(mutate_json(rng, json.loads(place.attrs[key])))
                    place.attrs[key] = value
            else:
                with suppress(TypeError, ValueError, OverflowError):
                    place.attrs[key] = json.dumps(value) if isinstance(value, dict) else "" if value is None else value


def _features_of(subject: Subject, path: Path) -> Any:
    return _features(subject.home / "cache" / path.parent.parent.name / path.parent.name / path.name)


def _features(path: Path) -> Any:
    """Read what a cache file holds; None where that cannot be done."""
    try:
        with h5py.File(path, "r") as file:
            layers = {name: data[:].tobytes() for name, data in file["features"].items()}
            return layers, file["labels"][:].tobytes(), file["ids"][:].tobytes(), file.attrs["skipped"]
    except Exception:  # noqa: BLE001  # it may be damaged in any way
        return None


def _other_answers(subject: Subject, folder: Path, outcome: Outcome) -> str:
    if outcome.code:
        return ""
    columns = ("backbone", "layer", "steps", "accuracy", "balanced_accuracy", "n_train", "n_test")
    first, again = (list(csv.DictReader((f / "results.csv").open())) for f in (subject.home / "results", folder))
    known = {tuple(row[c] for c in columns) for row in first if row["method"] == "linear_svc"}
    found = {tuple(row[c] for c in columns) for row in again}
    return "" if found <= known else "a damaged cache file gave other accuracies"


def toml(rng: random.Random, subject: Subject, work: Path) -> Prepared:
    """Change an experiment file."""
    content = subject.linear_experiment()
    content["evaluate"] |= {"steps": [[], ["power", "pca:5"]], "train_sizes": [2, 4]}
    content["baselines"] = [{"strategy": "scratch", "epochs": 1}]
    path = work / "mutated.toml"
    text = tomli_w.dumps(content)
    what = rng.randrange(4)
    if what == 0:
        path.write_bytes(mutate_bytes(rng, text.encode()))
    elif what == 1:
        depth = rng.choice((10, 3000, 100_000))
        line = rng.choice(
            (f"x = {'[' * depth}{']' * depth}", f"x = {'9' * depth}", f"{'a.' * depth}b = 1", "[[" + "a." * 99 + "b]]")
        )
        path.write_text(f"{line}\n{text}" if rng.random() < 0.5 else f"{text}\n{line}\n")
    else:
        mutated = mutate_json(rng, content, code=False)
        try:
            text = tomli_w.dumps(mutated)
        except (TypeError, ValueError):  # TOML has no null
            text = json.dumps(mutated)
        path.write_text(text, errors="surrogateescape")
    return Prepared(
        Call(("run", str(path), "--dry-run", "--results", str(work / "new"), "--cache", str(work), *_CPU), work)
    )


_KEYS = (
    "name", "seed", "dataset.root", "dataset.name", "dataset.limit_train", "dataset.val_fraction",
    "dataset.on_bad_image", "backbones", "backbones.0.name", "backbones.0.weights", "backbones.0.layers",
    "backbones.0.pooling", "backbones.1.image_size", "backbones.9.name", "backbones.0.batch_size",
    "evaluate.classifiers", "evaluate.folds", "evaluate.repeats", "evaluate.train_sizes", "evaluate.grids.linear_svc.C",
    "evaluate.steps", "evaluate.fusions", "evaluate.memory_gb", "baselines", "baselines.0.lr", "baselines.0.epochs",
    "baselines.0.batch_size", "baselines.0.dropout", "baselines.0.schedule", "baselines.0.layer_decay", "", ".", "a..b",
)  # fmt: skip


def settings(rng: random.Random, subject: Subject, work: Path) -> Prepared:
    """Give `--set` odd keys and values."""
    key = rng.choice(_KEYS)
    if rng.random() < 0.1:
        key = key + rng.choice((".", ".x" * 20_000, "." + "9" * 6000, "[0]", "\x1b[1m"))
    value = odd_value(rng, code=False)
    text = value if isinstance(value, str) else json.dumps(value)
    if rng.random() < 0.2:
        text = rng.choice(
            ("[" * 3000 + "]" * 3000, "9" * 6000, "1979-05-27", "0x" + "f" * 5000, "nan", '"', "{a=1}", "{a={b=1}}")
        )
    words = ("--set", f"{key}={text}".replace("\x00", "\\x00"))
    source = rng.choice((str(subject.home / "linear.toml"), str(subject.home / "photos")))
    less = ("--set", 'evaluate.classifiers=["linear_svc"]', "--set", "baselines=[]")
    arguments = ("run", source, *less, *words, "--dry-run", "--results", str(work / "new"), "--cache", str(work), *_CPU)
    return Prepared(Call(arguments, work))


def images(rng: random.Random, subject: Subject, work: Path) -> Prepared:
    """Damage an image, or let it declare what it does not hold."""
    source = rng.choice(sorted((subject.home / "images").iterdir()))
    content = source.read_bytes()
    path = work / rng.choice((source.name, f"x{source.suffix}", "x.jpg"))
    cut = False
    what = rng.random()
    if what < 0.25:
        content, cut = content[: rng.randrange(len(content) * 6 // 10)], True
    elif what < 0.4 and source.suffix == ".png":
        content = declare_png_size(content, rng.choice((1, 36, 60_000)), rng.choice((1, 44, 178_956_970, 60_000)))
    elif what < 0.9:
        content = mutate_bytes(rng, content)
    else:
        content = mutate_bytes(rng, rng.randbytes(200) + content)
    path.write_bytes(content)
    prepared = _predict(subject, subject.home / "results", None, rng, image=path)

    def wrong(outcome: Outcome) -> str:
        if cut and outcome.code == 0:
            return "an image of which more than a third is missing was taken"
        return prepared.wrong(outcome)

    return Prepared(prepared.call, wrong)


def places(rng: random.Random, subject: Subject, work: Path) -> Prepared:
    """Ask `predict` for odd paths, on the command line and on standard input, beside a good one."""
    odd = (
        b"",
        b"gone.jpg",
        b"x" * 5000,
        b"a/" * 3000,
        b"nul\x00.jpg",
        b"\xff\xfe.jpg",
        b"\x1b[2J.jpg",
        b"\xc2\x9b.jpg",
        b"~nouser",
        b"/dev/zero",
        b"/dev/stdin",
        b".",
        b"https://example.org/cat.jpg",
        b"-h",
    )
    lines = [rng.choice(odd), str(subject.image).encode(), rng.choice(odd)]
    rng.shuffle(lines)
    by_stdin = rng.random() < 0.6
    words = ["-"] if by_stdin else [line.replace(b"\x00", b"").decode("utf-8", "surrogateescape") for line in lines]
    arguments = ("predict", str(subject.home / "results"), "--format", "json", *_CPU, "--", *words)

    def wrong(outcome: Outcome) -> str:
        return "" if outcome.code == 2 or b"00.jpg" in outcome.stdout else "an odd path stopped a good one"

    return Prepared(Call(arguments, work, b"\n".join(lines) if by_stdin else b""), wrong)


KINDS: dict[str, Callable[[random.Random, Subject, Path], Prepared]] = {
    "card": card,
    "skops": skops,
    "safetensors": safetensors,
    "results.csv": results_csv,
    "hdf5": hdf5,
    "toml": toml,
    "--set": settings,
    "image": images,
    "path": places,
}


def _sign(path: Path) -> Path:
    """Put the hash of a model's file into its card, as whoever sends a folder can. Returns the card."""
    card_path = path.with_suffix(".json")
    content = json.loads(card_path.read_text())
    del content["card_hash"]
    content["sha256"] = hash_file(path)
    card_path.write_text(json.dumps(content | {"card_hash": fingerprint(content)}))
    return card_path


def _predict(
    subject: Subject, folder: Path, card_path: Path | None, rng: random.Random, *, image: Path | None = None
) -> Prepared:
    model = () if card_path is None else ("--model", card_path.stem.rpartition("-")[2])
    image = image or subject.image
    arguments = ("predict", str(folder), str(image), *model, "--format", "json", "--top", "99", *_CPU)
    return Prepared(Call(arguments, folder.parent), _not_a_prediction)


def _not_a_prediction(outcome: Outcome) -> str:
    """Say what is wrong with a prediction that the command was content with."""
    if outcome.code:
        return ""
    ((answer,), top) = json.loads(outcome.stdout), []
    top = answer["top"]
    values = [entry.get("probability", entry.get("score")) for entry in top]
    if len(top) < 2 or not all(isinstance(value, float | int) and abs(value) < float("inf") for value in values):
        return "a prediction has numbers that are none"
    if "probability" in top[0] and abs(sum(values) - 1) > 1e-3:
        return "probabilities do not add up to 1"
    return ""
