"""The wheel beside scikit-hep's `vector`: neither harms the other."""

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the checkout."""
    target = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(target), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    (built,) = target.glob("*.whl")
    return built


def test_the_wheel_puts_one_name_into_site_packages(wheel: Path) -> None:
    """Only `senselog` (and its metadata) reaches site-packages; the four packages are inside it."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"senselog"}
    for package in ("broker", "protocol", "storage", "vector"):
        assert f"senselog/_app/{package}/__init__.py" in names
    assert any(name.startswith("senselog/_app/protocol/schemas/") and name.endswith(".json") for name in names)


def test_beside_scikit_hep_vector(wheel: Path, tmp_path: Path) -> None:
    """With both installed, the launcher resolves our `vector`, and a user's `import vector` still gets theirs."""
    venv.create(tmp_path / "venv", with_pip=True, system_site_packages=False)
    python = tmp_path / "venv" / "bin" / "python"
    pip = [str(python), "-m", "pip", "install", "--quiet", "--no-input"]
    subprocess.run([*pip, "vector"], check=True, capture_output=True, text=True)
    subprocess.run([*pip, "--no-deps", str(wheel)], check=True, capture_output=True, text=True)
    # The dependencies come from the environment that runs the tests: this test is about names, not about them.
    dependencies = Path(sys.modules["pytest"].__file__ or "").parents[1]
    environment = {**os.environ, "PYTHONPATH": ""}
    ours = (
        f"import sys; sys.path.append({str(dependencies)!r}); import senselog.__main__ as launcher; "
        "sys.path.insert(0, str(launcher.ROOT)); import vector, vector.config; print(vector.__file__)"
    )
    theirs = "import vector; print(vector.__file__, vector.obj(x=3, y=4).rho)"
    seen = subprocess.run(
        [str(python), "-c", ours], check=True, capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    assert "senselog/_app/vector" in seen.stdout
    seen = subprocess.run(
        [str(python), "-c", theirs], check=True, capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    assert "_app" not in seen.stdout
    assert seen.stdout.strip().endswith("5.0")
