"""Names lead to files: shipped, cached, downloaded, or with words how to get them."""

from __future__ import annotations

import dataclasses
import http.server
import logging
import shlex
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from ase import Atoms

from jmp_md.checkpoints.native import write_native
from jmp_md.cli.main import parser_for
from jmp_md.cli.train import find_recipe
from jmp_md.errors import CheckpointError, InputError, JMPError, ModelNotFoundError
from jmp_md.graph.policy import GraphPolicy
from jmp_md.header import HeadInfo, ModelHeader
from jmp_md.models import catalogue, registry
from jmp_md.models.cards import model_card
from jmp_md.models.catalogue import KNOWN, KnownModel, how_to_get, training_command
from jmp_md.models.choice import shipped_for
from jmp_md.models.registry import add_model, list_models, resolve
from jmp_md.nn.config import preset
from jmp_md.training.recipe import load_recipe

ETHANOL = [6, 6, 8, 1, 1, 1, 1, 1, 1]


def write_model(
    path: Path, elements: tuple[int, ...] = (1, 6), formula: str = "", licence: str = "MIT"
) -> Path:
    head = HeadInfo("head", GraphPolicy.smooth(), elements=elements)
    training = {"domain": {"formula": formula}} if formula else {}
    metrics = {"force_mae_meV_per_A": 11.24, "test": "1000 frames"}
    header = ModelHeader(
        path.stem, preset("jmp-xs"), (head,), licence, metrics=metrics, training=training
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_native(path, header, {"w": torch.ones(3)})
    return path


def spread(numbers: list[int]) -> Atoms:
    """Atoms in a row, 2 Å apart."""
    return Atoms(numbers, [[2.0 * i, 0, 0] for i in range(len(numbers))])


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, no downloads, and nothing said of licences yet."""
    monkeypatch.setenv("JMP_MD_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("JMP_MD_OFFLINE", "1")
    catalogue._notify.cache_clear()
    return tmp_path / "home"


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for the package's."""
    folder = tmp_path / "package"
    folder.mkdir()
    monkeypatch.setattr(registry, "_shipped_dir", lambda: folder)
    return folder


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder whose model ``far.safetensors`` the registry downloads as ``far``."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    folder = write_model(tmp_path / "server" / "far.safetensors", licence="CC-BY-NC-4.0").parent
    handler = partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True).start()
        url = f"http://127.0.0.1:{httpd.server_address[1]}/far.safetensors"
        known = KnownModel("far", url=url, licence="CC-BY-NC-4.0")
        monkeypatch.setitem(registry.KNOWN, "far", known)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.delenv("JMP_MD_OFFLINE")
        yield folder
        httpd.shutdown()


def test_every_promised_name_is_known() -> None:
    assert {"jmp-s", "jmp-l", "jmp-xs"} <= KNOWN.keys()
    for size in ("xs", "s", "l"):
        assert f"jmp-{size}-rmd17-aspirin" in KNOWN
        assert f"jmp-{size}-md22-at-at-cg-cg" in KNOWN
        assert KNOWN[f"jmp-{size}-spice"].base == f"jmp-{size}"
    assert sum("-rmd17-" in name for name in KNOWN) == 30
    assert sum("-md22-" in name for name in KNOWN) == 21
    assert KNOWN["jmp-s"].url == "https://jmp-iclr-datasets.s3.amazonaws.com/jmp-s.pt"


def test_shipped_comes_before_cached(shipped: Path, home: Path) -> None:
    cached = write_model(home / "models" / "m.safetensors")
    assert resolve("m") == cached
    at_hand = write_model(shipped / "m.safetensors")
    assert resolve("m") == at_hand


def test_cached_comes_before_download(server: Path, home: Path) -> None:
    cached = write_model(home / "models" / "far.safetensors", licence="MIT")
    before = cached.read_bytes()
    assert resolve("far") == cached
    assert cached.read_bytes() == before


def test_downloaded_once_then_found_in_the_cache(server: Path, home: Path) -> None:
    path = resolve("far")
    assert path == home / "models" / "far.safetensors"
    assert path.read_bytes() == (server / "far.safetensors").read_bytes()
    (server / "far.safetensors").unlink()
    assert resolve("far") == path


def test_damaged_cached_file_is_refused(server: Path) -> None:
    path = resolve("far")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"far\.safetensors has sha256 .*delete"):
        resolve("far")


def test_paths_win_over_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    here = write_model(tmp_path / "jmp-s.safetensors")
    assert resolve("jmp-s.safetensors").samefile(here)
    assert resolve("./jmp-s.safetensors").samefile(here)
    assert resolve(Path("jmp-s.safetensors")).samefile(here)
    with pytest.raises(ModelNotFoundError, match=r"no model file absent\.pt.*jmp-md models"):
        resolve("absent.pt")
    with pytest.raises(ModelNotFoundError, match="no model file"):
        resolve(tmp_path)


def test_unknown_name_gets_the_nearest_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ModelNotFoundError, match=r"'jmp-s-rmd17-etanol'.*jmp-s-rmd17-ethanol"):
        resolve("jmp-s-rmd17-etanol")
    with pytest.raises(ModelNotFoundError, match=r"did you mean .*jmp-s"):
        resolve("JMP-S")
    with pytest.raises(ModelNotFoundError, match=r"unknown model '\*'.*lists the names"):
        resolve("*")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "0000").write_text("")
    with pytest.raises(ModelNotFoundError, match=r"for the file, write \./0000"):
        resolve("0000")


def test_official_name_offline_says_how_to_place_the_file() -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        resolve("jmp-s")
    message = str(caught.value)
    assert "JMP_MD_OFFLINE" in message
    assert "https://jmp-iclr-datasets.s3.amazonaws.com/jmp-s.pt" in message
    assert "jmp-md models add jmp-s FILE" in message


def test_known_name_not_at_hand_works_after_the_command_it_names(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        resolve("jmp-l-spice")
    message = str(caught.value)
    assert "'jmp-l-spice' is known but not at hand" in message
    assert "base weights jmp-l ('jmp-md models path jmp-l' downloads them)" in message
    assert "SPICE" in message
    assert "jmp-md models add jmp-l-spice FILE" in message
    add_model("jmp-l-spice", write_model(tmp_path / "mine.safetensors"))
    assert resolve("jmp-l-spice").name == "jmp-l-spice.safetensors"


@pytest.mark.parametrize("name", [name for name, known in KNOWN.items() if not known.url])
def test_training_commands_run(name: str) -> None:
    """Every model that is trained has a recipe that, with the options given, makes that model."""
    command = training_command(KNOWN[name])
    assert f"'{command}'" in how_to_get(KNOWN[name])
    program, *words = shlex.split(command)
    args = parser_for(words).parse_args(words)
    assert program == "jmp-md"
    recipe = load_recipe(find_recipe(args.recipe), args.set)
    assert recipe.model.name.lower().startswith(name)
    assert recipe.model.base in (KNOWN[name].base, None)


def test_a_model_without_recipe_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "recipes").mkdir()
    monkeypatch.setattr(catalogue.resources, "files", lambda package: tmp_path)
    assert "no recipe" in how_to_get(KNOWN["jmp-l-md22-dha"])


def test_added_file_is_a_copy_and_is_replaced_only_by_force(tmp_path: Path) -> None:
    source = write_model(tmp_path / "mine.safetensors")
    target = add_model("mine", source)
    first = target.read_bytes()
    source.unlink()
    assert resolve("mine").read_bytes() == first
    other = write_model(tmp_path / "other.safetensors", elements=(8,))
    with pytest.raises(InputError, match=r"'mine' is there already.*--force"):
        add_model("mine", other)
    assert target.read_bytes() == first
    add_model("mine", other, force=True)
    assert resolve("mine").read_bytes() == other.read_bytes()


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "Big", "x.pt", "a b", "m\n"])
def test_names_that_are_no_names_are_refused(tmp_path: Path, home: Path, name: str) -> None:
    with pytest.raises(InputError, match="cannot be a model name"):
        add_model(name, write_model(tmp_path / "mine.safetensors"))
    assert not home.exists()


def test_name_of_a_shipped_model_cannot_be_taken(shipped: Path, tmp_path: Path) -> None:
    write_model(shipped / "own.safetensors")
    with pytest.raises(InputError, match="'own' is shipped"):
        add_model("own", write_model(tmp_path / "mine.safetensors"), force=True)


def test_files_that_are_no_models_are_not_added(tmp_path: Path, home: Path) -> None:
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"not a model")
    with pytest.raises(CheckpointError, match=r"broken\.safetensors"):
        add_model("x", broken)
    with pytest.raises(InputError, match=r"must end in \.safetensors"):
        add_model("x", write_model(tmp_path / "a.safetensors").rename(tmp_path / "a.bin"))
    with pytest.raises(InputError, match="no model file"):
        add_model("x", tmp_path / "absent.safetensors")
    assert not home.exists()


def test_official_checkpoint_is_added_and_replaced_by_a_native_one(
    shared: Path, tmp_path: Path, home: Path
) -> None:
    add_model("jmp-s", shared / "reference" / "tiny-pretrain.ckpt")
    assert resolve("jmp-s") == home / "models" / "jmp-s.ckpt"
    add_model("jmp-s", write_model(tmp_path / "mine.safetensors"), force=True)
    names = sorted(p.name for p in (home / "models").iterdir())
    assert names == ["jmp-s.safetensors", "jmp-s.safetensors.sha256"]
    fake = tmp_path / "fake.pt"
    fake.write_bytes(b"no checkpoint")
    with pytest.raises(JMPError, match=r"fake\.pt"):
        add_model("jmp-l", fake)


def test_licence_is_told_once_for_non_commercial_weights(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "jmp_md"):
        resolve(write_model(tmp_path / "free.safetensors", licence="MIT"))
        assert caplog.text == ""
        official = write_model(tmp_path / "official.safetensors", licence="CC BY-NC 4.0")
        resolve(official)
        resolve(official)
    assert caplog.text.count("non-commercial use only") == 1


def test_licence_is_told_for_official_downloads(
    server: Path, caplog: pytest.LogCaptureFixture
) -> None:
    resolve("far")
    assert caplog.text.count("non-commercial use only") == 1


def test_list_says_where_every_model_is(shipped: Path, home: Path) -> None:
    write_model(shipped / "own.safetensors", elements=(6, 1), formula="CH4")
    write_model(home / "models" / "mine.safetensors")
    (home / "models" / "bad.safetensors").write_bytes(b"broken")
    (home / "models" / "jmp-s.pt").write_bytes(b"1234")
    entries = {entry.name: entry for entry in list_models()}
    assert entries["own"].where == "shipped"
    assert entries["own"].elements == (1, 6)
    assert entries["own"].domain == "CH4"
    assert entries["own"].licence == "MIT"
    assert entries["mine"].where == "cached"
    assert entries["mine"].size == (home / "models" / "mine.safetensors").stat().st_size
    assert "bad.safetensors is truncated" in entries["bad"].problem
    assert (entries["jmp-s"].where, entries["jmp-s"].size) == ("cached", 4)
    assert entries["jmp-l"].where == "to download"
    assert entries["jmp-l"].licence == "CC-BY-NC-4.0"
    assert entries["jmp-l-spice"].where == "to train"
    assert entries.keys() >= KNOWN.keys()


def test_shipped_model_of_the_molecule_is_preferred_and_others_are_left_out(shipped: Path) -> None:
    write_model(shipped / "broad.safetensors", (1, 6, 7, 8, 9))
    write_model(shipped / "general.safetensors", (1, 6, 8))
    write_model(shipped / "ethanol.safetensors", (1, 6, 8), formula="C2H6O")
    write_model(shipped / "carbon.safetensors", (6,))
    write_model(shipped / "untold.safetensors", ())
    (shipped / "bad.safetensors").write_bytes(b"broken")
    assert [e.name for e in shipped_for(spread(ETHANOL))] == ["ethanol", "general", "broad"]
    assert [e.name for e in shipped_for(spread(ETHANOL * 2))] == ["general", "broad"]
    assert [e.name for e in shipped_for(spread([6, 7]))] == ["broad"]
    assert shipped_for(spread([26])) == []


def test_a_model_with_several_heads_is_not_chosen_without_one(shipped: Path) -> None:
    heads = tuple(
        HeadInfo(name, GraphPolicy.smooth(), elements=(1, 6)) for name in ("wB97X", "PBE0")
    )
    header = ModelHeader("both", preset("jmp-xs"), heads)
    write_native(shipped / "both.safetensors", header, {"w": torch.ones(1)})
    assert shipped_for(spread([1, 6])) == []
    named = dataclasses.replace(header, name="named", default_head="PBE0")
    write_native(shipped / "named.safetensors", named, {"w": torch.ones(1)})
    assert [e.name for e in shipped_for(spread([1, 6]))] == ["named"]
    (shipped / "named.safetensors").unlink()
    write_model(shipped / "one.safetensors", elements=(1, 6))
    assert [e.name for e in shipped_for(spread([1, 6]))] == ["one"]


def test_models_of_the_package_are_found_where_it_is_installed() -> None:
    folder = registry._shipped_dir()
    assert (folder / "registry.py").is_file()


def test_cache_follows_the_system_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JMP_MD_HOME")
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert registry.cache_dir() == Path("/xdg/jmp-md")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert registry.cache_dir() == Path.home() / ".cache" / "jmp-md"
    monkeypatch.setattr("sys.platform", "darwin")
    assert registry.cache_dir() == Path.home() / "Library" / "Caches" / "jmp-md"


def test_card_tells_what_the_header_knows() -> None:
    head = HeadInfo(
        "oc20",
        GraphPolicy.official(12.0, 30),
        has_references=False,
        force_scale=0.5,
        elements=(8, 1, 29),
        level_of_theory="RPBE",
    )
    header = ModelHeader(
        "mine",
        preset("jmp-s"),
        (head,),
        licence="CC-BY-NC-4.0",
        data="OC20 (CC-BY-4.0)",
        metrics={"force_mae_meV_per_A": 11.25},
        training={"seeds": [1, 2]},
    )
    card = model_card(header, 2_000_000)
    for text in (
        "# mine",
        "2.0 MB",
        "CC-BY-NC-4.0",
        "OC20 (CC-BY-4.0)",
        "Elements: H O Cu",
        "RPBE",
        "unknown constant per element",
        "conservative, and direct",
        "main 12 Å (nearest 30)",
        "force_mae_meV_per_A: 11.25",
        "seeds: [1, 2]",
        "Non-commercial use only",
        "equal composition only",
        "graphs are not smooth",
    ):
        assert text in card
    plain = ModelHeader("plain", preset("jmp-xs"), (HeadInfo("h", GraphPolicy.smooth()),))
    card = model_card(plain, 1)
    assert "measure before use" in card
    assert "Elements: unknown" in card
    assert "Non-commercial" not in card
    assert "not smooth" not in card


def test_what_was_added_can_be_removed_and_nothing_else(tmp_path: Path) -> None:
    target = add_model("mine", write_model(tmp_path / "mine.safetensors"))
    kept = target.with_name("mine.benchmark.json")
    kept.write_text("{}")
    other = add_model("mine-too", write_model(tmp_path / "other.safetensors"))
    assert set(registry.remove_model("mine")) >= {target, kept}
    assert not target.exists()
    assert not kept.exists()
    assert other.exists()
    with pytest.raises(ModelNotFoundError):
        resolve("mine")
    for name, why in (("mine", "is not in"), ("", "is not in"), ("jmp-xs", "is shipped")):
        with pytest.raises(InputError, match=why):
            registry.remove_model(name)
    assert resolve("jmp-xs").exists()
