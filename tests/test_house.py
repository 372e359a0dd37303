"""The rules of the house: who imports whom, what an import costs, what is shipped."""

import configparser
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import neuroigc
from neuroigc._files import atomic_path, make_output_folder
from neuroigc._validation import InputError, check_choice, check_same_length

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "neuroigc"


def modules_after(statement):
    """Return the top-level and dotted modules that a fresh interpreter loads for ``statement``."""
    code = f"import sys\n{statement}\nprint('\\n'.join(sys.modules))"
    command = [sys.executable, "-W", "error", "-c", code]
    return set(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())


def lint_imports(folder):
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture
def copy_of_package(tmp_path):
    shutil.copytree(PACKAGE, tmp_path / "neuroigc", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_importing_the_package_alone_is_cheap():
    loaded = modules_after("import neuroigc")
    assert "neuroigc" in loaded
    assert not loaded & {"torch", "nibabel", "numpy", "pandas", "matplotlib", "nilearn"}


@pytest.mark.parametrize("room", ["attribution", "models"])
def test_rooms_for_any_torch_model_load_no_neuroimaging(room):
    loaded = modules_after(f"import neuroigc.{room}")
    assert "torch" in loaded
    assert not loaded & {"nibabel", "nilearn", "pandas", "matplotlib", "h5py"}


def test_the_check_of_loaded_modules_can_fail():
    assert "matplotlib" in modules_after("import neuroigc.attribution, matplotlib")


@pytest.mark.parametrize("room", neuroigc._ROOMS)
def test_rooms_are_reached_from_the_package(room):
    assert getattr(neuroigc, room).__name__ == f"neuroigc.{room}"
    assert room in dir(neuroigc)


def test_unknown_attribute_of_the_package():
    with pytest.raises(AttributeError, match="no attribute 'cellar'"):
        neuroigc.cellar  # noqa: B018


@pytest.mark.parametrize(
    ("module", "statement", "contract"),
    [
        ("models/networks.py", "import neuroigc.datasets", "One way"),
        ("datasets/nsd.py", "import neuroigc.cli", "One way"),
        ("attribution/pairs.py", "import nibabel", "with a torch model"),
    ],
)
def test_a_broken_import_contract_is_noticed(copy_of_package, module, statement, contract):
    pytest.importorskip("importlinter", reason="import-linter is in the extra 'lint'")
    assert lint_imports(copy_of_package).returncode == 0
    path = copy_of_package / "neuroigc" / module
    path.write_text(path.read_text(encoding="utf-8") + f"\n{statement}\n", encoding="utf-8")
    broken = lint_imports(copy_of_package)
    assert broken.returncode != 0
    assert any(contract in line and "BROKEN" in line for line in broken.stdout.splitlines())


def test_setup_lists_every_package():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    listed = set(setup["options"]["packages"].split())
    on_disk = {
        ".".join(path.parent.relative_to(ROOT).parts) for path in PACKAGE.rglob("__init__.py")
    }
    assert listed == on_disk | {"neuroigc._manifests"}


def test_public_names_exist_and_are_documented():
    for room in neuroigc._ROOMS:
        module = getattr(neuroigc, room)
        for name in module.__all__:
            assert getattr(module, name).__doc__, f"{room}.{name} has no docstring"


def test_input_error_travels_between_processes():
    error = InputError("a", expected="b", got="c", fix="Do d.")
    rebuild, arguments = error.__reduce__()
    assert str(rebuild(*arguments)) == str(error) == "a: expected b; got c. Do d."


def test_check_choice_lists_the_choices():
    with pytest.raises(InputError, match=r"mesh: expected one of 'flat', 'pial'; got 'flta'"):
        check_choice("mesh", "flta", ["flat", "pial"])


def test_check_same_length_names_both():
    assert check_same_length(responses=[1, 2], targets=[3, 4], conditions=None) == 2
    with pytest.raises(InputError, match="responses has 2, targets has 1"):
        check_same_length(responses=[1, 2], targets=[3])


def test_atomic_path_leaves_no_half_file(tmp_path):
    target = tmp_path / "map.shape.gii"
    target.write_text("old")

    def interrupted():
        with atomic_path(target) as temporary:
            assert temporary.name.endswith(".shape.gii")
            temporary.write_text("half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        interrupted()
    assert target.read_text() == "old"
    with atomic_path(target) as temporary:
        temporary.write_text("new")
    assert target.read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["map.shape.gii"]


def test_unwritable_output_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"out: expected a folder that can be written to; got"):
        make_output_folder(tmp_path / "file" / "study")
