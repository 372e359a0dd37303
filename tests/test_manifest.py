"""Manifests: what is proof, what is not, and where they are found."""

import gzip
import hashlib
import shutil
from pathlib import Path

import pytest

from neuroigc._validation import InputError
from neuroigc.datasets import list_manifests, load_manifest, manifest, verify

HEAD = """
name = "tiny"
title = "Tiny"
version = "1"
licence = "unknown"
access = "open"
how_to_obtain = "Make it."
"""
CHECKOUT = Path(__file__).resolve().parents[1] / "data_manifests"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    path = tmp_path / "manifests"
    path.mkdir()
    monkeypatch.setenv("NEUROIGC_MANIFESTS", str(path))
    return path


@pytest.fixture
def write(folder):
    def write(text, head=HEAD, name="tiny"):
        (folder / f"{name}.toml").write_text(head + text)

    return write


@pytest.fixture
def root(tmp_path):
    path = tmp_path / "data"
    path.mkdir()
    return path


def state(root, **options):
    (status,) = verify("tiny", root, **options)
    return status.state


def test_states(write, root):
    digest = hashlib.sha256(b"content").hexdigest()
    write(f'[[files]]\npath = "a/b.bin"\nrole = "betas"\nsha256 = "{digest}"\nbytes = 7')
    assert state(root) == "missing"
    (root / "a").mkdir()
    path = root / "a" / "b.bin"
    path.write_bytes(b"conten")
    (status,) = verify("tiny", root)
    assert status.path == "a/b.bin"
    assert (status.state, status.detail) == ("wrong_size", "expected 7 bytes; got 6")
    path.write_bytes(b"c0ntent")
    assert state(root) == "corrupt"
    path.write_bytes(b"content")
    assert state(root) == "ok"


def test_no_hash_is_no_proof(write, root):
    write('[[files]]\npath = "a"\nrole = "betas"\nmin_bytes = 5')
    (root / "a").write_bytes(b"four")
    assert state(root) == "wrong_size"
    (root / "a").write_bytes(b"five!")
    assert state(root) == "unverified"
    assert state(root, deep=True) == "unverified"


def test_large_files_are_hashed_on_request(write, root, monkeypatch):
    monkeypatch.setattr(manifest, "SHALLOW_BYTES", 3)
    write(f'[[files]]\npath = "a"\nrole = "x"\nmd5 = "{hashlib.md5(b"four").hexdigest()}"')
    (root / "a").write_bytes(b"four")
    assert state(root) == "unverified"
    assert state(root, deep=True) == "ok"
    (root / "a").write_bytes(b"f0ur")
    assert state(root) == "unverified"
    assert state(root, deep=True) == "corrupt"


def test_archives_that_were_packed_anew(write, root):
    digest = hashlib.sha256(b"digits").hexdigest()
    write(f'[[files]]\npath = "a.gz"\nrole = "x"\nmd5 = "{"0" * 32}"\ncontent_sha256 = "{digest}"')
    path = root / "a.gz"
    path.write_bytes(gzip.compress(b"digits", mtime=1))
    assert state(root) == "ok"
    path.write_bytes(gzip.compress(b"d1gits"))
    assert state(root) == "corrupt"
    path.write_bytes(gzip.compress(b"digits")[:-9])
    assert state(root) == "corrupt"
    path.write_bytes(b"not gzip")
    assert state(root) == "corrupt"


def test_parts_may_be_left_out_as_a_whole(write, root):
    write(
        '[[files]]\npath = "design"\nrole = "design"\n'
        '[[files]]\npath = "{s}/{k}"\nrole = "betas"\npart = "{s}"\n'
        'each = { s = ["s1", "s2"], k = "09..10" }'
    )
    everything = ["design", "s1/09", "s1/10", "s2/09", "s2/10"]
    assert [entry.path for entry in load_manifest("tiny").files] == everything
    assert [status.path for status in verify("tiny", root)] == everything
    (root / "s2").mkdir()
    (root / "s2" / "10").touch()
    statuses = {status.path: status.state for status in verify("tiny", root)}
    assert statuses == {"design": "missing", "s2/09": "missing", "s2/10": "unverified"}


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "../x", "a/../../x", "C:/x", "C:x", "\\\\server\\x", "a\\..\\x", "a/{b}"],
)
def test_paths_stay_inside_the_root(write, path):
    write(f"[[files]]\npath = '{path}'\nrole = 'x'")
    with pytest.raises(InputError, match="paths that stay inside the root"):
        load_manifest("tiny")


def test_values_cannot_lead_out_of_the_root(write):
    write('[[files]]\npath = "a/{k}/b"\nrole = "x"\neach = { k = [".."] }')
    with pytest.raises(InputError, match=r"paths that stay inside the root; got path = 'a/../b'"):
        load_manifest("tiny")


@pytest.mark.parametrize(
    ("text", "head", "message"),
    [
        ("", HEAD.replace('licence = "unknown"', ""), r"nothing for \['licence'\]"),
        ('colour = "red"', HEAD, r"unknown \['colour'\]"),
        ('[[files]]\npath = "a"', HEAD, r"nothing for \['role'\]"),
        ('[[files]]\npath = "a"\nrole = "x"\nsha = ""', HEAD, r"unknown \['sha'\]"),
        ("", HEAD.replace("open", "secret"), "access: expected one of 'open'"),
        ("", HEAD.replace('"tiny"', '"huge"'), "expected name = 'tiny'; got 'huge'"),
        ("[[", HEAD, "expected a TOML file"),
        ('[[files]]\npath = "a"\nrole = "x"\n' * 2, HEAD, "each file once; got 1 twice"),
        ('[[files]]\npath = "{k}"\nrole = "x"\neach = { k = 3 }', HEAD, "strings or a range"),
        ('[[files]]\npath = "{k}"\nrole = "x"\neach = 3', HEAD, "each: expected a table; got 3"),
        (
            '[[files]]\npath = "{k}"\nrole = "x"\neach = { k = "0..99999999" }',
            HEAD,
            "100000 files at most",
        ),
        (
            '[[files]]\npath = "{k}{l}"\nrole = "x"\neach = { k = "0..999", l = "0..999" }',
            HEAD,
            "100000 files at most",
        ),
        ("files = 3", HEAD, "files: expected tables; got int"),
        ("files = [3]", HEAD, "files: expected tables; got list"),
        ('[[files]]\npath = 3\nrole = "x"', HEAD, "path: expected str; got 3"),
        ('[[files]]\npath = "a"\nrole = "x"\nbytes = "9"', HEAD, "bytes: expected int; got '9'"),
        ('[[files]]\npath = "a"\nrole = "x"\nbytes = -9', HEAD, "bytes: expected int; got -9"),
        ('[[files]]\npath = "a"\nrole = "x"\nshape = [1.5]', HEAD, "shape: expected tuple"),
        ('[[files]]\npath = "a"\nrole = "x"\nmd5 = "0g"', HEAD, "md5: expected 32 digits"),
        ("", HEAD + "redistributable = 1", "redistributable: expected bool; got 1"),
        ("", HEAD.replace('"Tiny"', "['Tiny']"), "title: expected str; got"),
        ("x = " + "[" * 5000, HEAD, "expected a TOML file"),
    ],
)
def test_manifests_that_are_wrong(write, text, head, message):
    write(text, head=head)
    with pytest.raises(InputError, match=message):
        load_manifest("tiny")


def test_where_manifests_are_found(write, folder, tmp_path, monkeypatch):
    write("")
    assert list_manifests() == ["tiny"]
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(CHECKOUT / "mnist.toml", other)
    assert list_manifests(folder=other) == ["mnist"]
    monkeypatch.delenv("NEUROIGC_MANIFESTS")
    assert list_manifests() == sorted(path.stem for path in CHECKOUT.glob("*.toml"))
    with pytest.raises(InputError, match=r"name: expected one of .*'nsd'.*; got 'nds'"):
        load_manifest("nds")


def test_installed_manifests_come_before_the_checkout(tmp_path, monkeypatch):
    monkeypatch.delenv("NEUROIGC_MANIFESTS", raising=False)
    shutil.copy(CHECKOUT / "mnist.toml", tmp_path)
    monkeypatch.setattr(manifest.importlib.resources, "files", lambda _: tmp_path)
    assert list_manifests() == ["mnist"]


def test_without_an_installation(monkeypatch):
    monkeypatch.delenv("NEUROIGC_MANIFESTS", raising=False)

    def not_installed(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(manifest.importlib.resources, "files", not_installed)
    assert "nsd" in list_manifests()


def test_folders_that_are_not_there(tmp_path, monkeypatch, write):
    write("")
    with pytest.raises(InputError, match="folder: expected a folder with manifests"):
        list_manifests(folder=tmp_path / "none")
    with pytest.raises(InputError, match="root: expected a folder; got"):
        verify("tiny", tmp_path / "none")
    monkeypatch.setenv("NEUROIGC_MANIFESTS", str(tmp_path / "none"))
    with pytest.raises(InputError, match="NEUROIGC_MANIFESTS: expected a folder with manifests"):
        list_manifests()


@pytest.mark.parametrize("name", ["algonauts2023", "haxby2001", "mnist", "nsd", "szinte2024"])
def test_our_manifests(name):
    content = load_manifest(name, folder=CHECKOUT)
    assert content.licence
    assert len(content.how_to_obtain) > 100
    assert content.files
    for entry in content.files:
        assert "{" not in entry.part
        assert len(entry.sha256) in (0, 64)
        assert len(entry.content_sha256) in (0, 64)
        assert len(entry.md5) in (0, 32)


def test_sessions_of_nsd():
    files = load_manifest("nsd", folder=CHECKOUT).files
    sessions = [
        sum(entry.role == "betas" and entry.part == f"subj{s:02d}" for entry in files) // 2
        for s in range(1, 9)
    ]
    assert sessions == [40, 40, 32, 30, 40, 32, 40, 30]
    betas = next(entry for entry in files if entry.role == "betas")
    assert betas.min_bytes == 284 + 4 * 163842 * 750


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "folder"),
    [("mnist", "mnist"), ("haxby2001", "haxby2001_slice"), ("szinte2024", "prf_szinte2024")],
)
def test_real_files(real_data, name, folder):
    statuses = verify(name, real_data / folder, folder=CHECKOUT)
    assert statuses
    assert {status.state for status in statuses} == {"ok"}
