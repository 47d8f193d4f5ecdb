"""The first cell on Colab: machines that forget, a Drive that does not, no network, half a clone, and torch left alone."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path
from typing import Any

import little_course
import pytest
from little_course import PUT, TAKE, WRONG_PUT

from course import colab, notebooks, settings
from course.drive import Shelf
from course.environment import ROOT

GOOGLE = '''
import os, pathlib, shutil

class drive:
    @staticmethod
    def mount(where):
        """Drive appears below `where`."""
        pathlib.Path(where).mkdir(parents=True, exist_ok=True)
        (pathlib.Path(where) / "MyDrive").symlink_to(os.environ["FAKE_DRIVE"])

class files:
    @staticmethod
    def download(path):
        shutil.copy(path, os.environ["FAKE_DOWNLOADS"])

    @staticmethod
    def upload():
        folder = pathlib.Path(os.environ["FAKE_DOWNLOADS"])
        return {path.name: path.read_bytes() for path in folder.glob("*.zip")}
'''


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main")
    return subprocess.run(["git", *who, *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout


class World:
    """Somebody's published course, a Drive, and a Python that has everything but the course."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.published = little_course.make(folder / "published")
        for name in ("requirements.txt", ".gitignore"):
            shutil.copy(ROOT / name, self.published)
        git(self.published, "init", "--quiet")
        self.publish("first")
        self.bare = folder / "bare.git"
        git(folder, "clone", "--quiet", "--bare", str(self.published), str(self.bare))
        git(self.published, "remote", "add", "origin", str(self.bare))
        for name in ("drive", "downloads", "modules/google/colab"):
            (folder / name).mkdir(parents=True)
        (folder / "modules/google/colab/__init__.py").write_text(textwrap.dedent(GOOGLE), encoding="utf-8")
        # The real one takes seconds to import, each time.
        torch = "__version__ = 'fake'\nclass cuda:\n    is_available = staticmethod(lambda: False)\n"
        (folder / "modules/torch.py").write_text(torch, encoding="utf-8")
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True)
        (site,) = (folder / "venv").glob("lib/python*/site-packages")
        # Its packages are found there, but not the course: lines in *.pth files further down count for nothing.
        (site / "others.pth").write_text("\n".join(p for p in sys.path if p.endswith("-packages")), encoding="utf-8")
        self.python = folder / "venv" / "bin" / "python"

    def publish(self, message: str) -> None:
        git(self.published, "add", "--all")
        git(self.published, "commit", "--quiet", "--message", message)
        if git(self.published, "remote").strip():
            git(self.published, "push", "--quiet", "origin", "main")


class Machine:
    """A machine of Colab's: its own /content, the setup cell of notebook 03, and whatever runs after it."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.content = world, world.folder / name
        self.content.mkdir(exist_ok=True)
        self.root = self.content / "flexnano-course"

    def run(self, script: str, online: bool = True, colab: bool = True, cwd: Path | None = None) -> str:
        """Run a script in which `cell(text)` runs a cell and gives back what it showed.  Returns what it printed."""
        setup = notebooks.setup(3).replace('"/content/', f'"{self.content}/')
        begin = f"""
            import sys
            sys.path[:0] = [{str(self.world.folder / "modules")!r}] if {colab} else []
            import io, os
            from contextlib import redirect_stderr, redirect_stdout
            from pathlib import Path
            from IPython.core.interactiveshell import InteractiveShell
            PUT, TAKE, WRONG_PUT, SETUP = {PUT!r}, {TAKE!r}, {WRONG_PUT!r}, {setup!r}
            root = Path({str(self.root)!r})
            shell = InteractiveShell.instance(colors="NoColor")

            def cell(text, ok=True):
                with redirect_stdout(io.StringIO()) as said, redirect_stderr(said):
                    result = shell.run_cell(text)
                assert result.success is ok, said.getvalue()
                return said.getvalue()
        """
        environment = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("FLEXNANO", "GIT_", "PYTHON", "PIP_"))
        }
        remote = self.world.bare if online else self.world.folder / "unplugged.git"
        environment |= {
            "OMP_NUM_THREADS": "1",
            "IPYTHONDIR": str(self.content / ".ipython"),
            "FAKE_DRIVE": str(self.world.folder / "drive"),
            "FAKE_DOWNLOADS": str(self.world.folder / "downloads"),
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": f"url.{remote}.insteadOf",
            "GIT_CONFIG_VALUE_0": settings.REPOSITORY,
        }
        if colab:
            environment["COLAB_RELEASE_TAG"] = "release-colab-test"
        done = subprocess.run(
            [str(self.world.python), "-c", textwrap.dedent(begin) + textwrap.dedent(script)],
            cwd=cwd or self.content,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def world_once(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture
def world(world_once: World, request: pytest.FixtureRequest) -> World:
    """The world, with an empty Drive; what one test publishes stays published."""
    for name in ("drive", "downloads"):
        shutil.rmtree(world_once.folder / name)
        (world_once.folder / name).mkdir()
    return world_once


def machine(world: World, request: pytest.FixtureRequest, name: str = "a") -> Machine:
    return Machine(world, re.sub(r"\W+", "-", f"{request.node.name}-{name}"))


# ---------------------------------------------------------------------------------------------- two machines, one Drive


def test_work_travels_from_machine_to_machine_through_drive(world: World, request: pytest.FixtureRequest) -> None:
    first, second = machine(world, request, "first"), machine(world, request, "second")
    first.run(
        """
        said = cell(SETUP)
        assert "torch" in said and "GPU: none" in said and "%course_drive" in said and "Installing" not in said, said
        assert "passed" in cell("%%exercise 3.1\\n" + PUT)
        assert "kept in Google Drive" in cell("%course_drive")
        said = cell("%%exercise 3.2\\n" + TAKE)
        assert "passed" in said, said
        cell("%%exercise 3.1\\n" + WRONG_PUT)
        """
    )
    kept = world.folder / "drive" / settings.DRIVE_FOLDER / "flexnano"
    assert [path.name for path in kept.iterdir()] == ["page_table.py"], "untouched stubs are no work"
    second.run(
        """
        cell("from google.colab import drive; drive.mount(%r)" % str(root.parent / "drive"))
        said = cell(SETUP)
        assert "From there: flexnano/page_table.py" in said, said
        cell("from flexnano import Shelf; s = Shelf(); assert s.put('a') == 1 and s.take(1) == ['a']")
        assert "version 1 again" in cell("%undo 3.1"), "earlier versions travel too"
        assert "From there" not in cell(SETUP)
        """
    )


def test_two_machines_that_write_at_the_same_time_lose_nothing(world: World, request: pytest.FixtureRequest) -> None:
    begin = """
        cell("from google.colab import drive; drive.mount(%r)" % str(root.parent / "drive"))
        cell(SETUP)
    """
    first, second = machine(world, request, "first"), machine(world, request, "second")
    first.run(begin)
    second.run(begin)  # both know the same, empty Drive
    first.run("cell(SETUP); assert 'passed' in cell('%%exercise 3.1\\n' + PUT)")
    label = "SIGN = '<{}>'\ndef label(n: int) -> str:\n    return SIGN.format(n)\n"
    # The second machine writes the same file, and Drive is slow: neither sees what the other wrote until it is overwritten.
    shelf = Shelf(second.root, world.folder / "drive" / settings.DRIVE_FOLDER)
    before = (shelf.folder / "flexnano" / "page_table.py").read_bytes()
    (shelf.folder / "flexnano" / "page_table.py").unlink()
    second.run(f"cell(SETUP); assert 'passed' in cell('%%exercise 3.3\\n' + {label!r})")
    (shelf.folder / "flexnano" / "page_table.py").write_bytes(before)
    second.run(
        """
        said = cell(SETUP)
        assert "From there: flexnano/page_table.py" in said, said
        text = (root / "flexnano" / "page_table.py").read_text()
        assert "self.books.append(book)" in text and "SIGN.format(n)" in text, text
        """
    )
    first.run(
        """
        said = cell(SETUP)
        assert "From there: flexnano/page_table.py" in said, said
        cell("from flexnano import Shelf, label; assert label(3) == '<3>' and Shelf().put('a') == 0")
        """
    )


def test_a_function_written_on_two_machines_is_kept_twice(tmp_path: Path) -> None:
    drive, a = tmp_path / "drive", little_course.make(tmp_path / "a")
    b = shutil.copytree(a, tmp_path / "b")
    for root, code in ((a, PUT), (b, WRONG_PUT)):
        little_course.write(root, "page_table.py", "Shelf.put", code)
    (b / "flexnano" / "page_table.py").write_text(
        (b / "flexnano" / "page_table.py").read_text() + "\n\nimport random\n\n\ndef helper():\n    return random\n"
    )
    script = """
        from course.drive import Shelf
        from pathlib import Path
        import sys
        shelf = Shelf(Path.cwd(), Path(sys.argv[1]) if len(sys.argv) > 1 else Path(DRIVE))
        print(shelf.sync(), shelf.told)
    """
    script = textwrap.dedent(script).replace("DRIVE", repr(str(drive)))
    assert little_course.run(a, script).strip() == "[] []"
    said = little_course.run(b, script)
    assert "3.1 Shelf.put was written on two machines" in said and "version 1, .course/history/3.1/001.py" in said
    assert little_course.function(b, "page_table.py", "Shelf.put") == WRONG_PUT
    assert "append(book)\n    return len(self.books) - 1" in (b / ".course/history/3.1/001.py").read_text()
    assert "page_table.py" in little_course.run(a, script)
    assert little_course.function(a, "page_table.py", "Shelf.put") == WRONG_PUT
    assert "def helper" in (a / "flexnano" / "page_table.py").read_text()
    little_course.run(a, "from flexnano.page_table import helper; helper()")
    # one side is no Python: both stay
    (a / "flexnano" / "page_table.py").write_text("def (\n")
    little_course.write(b, "page_table.py", "label", "def label(n: int) -> str:\n    return ''\n")
    little_course.run(b, script)
    assert "kept as .course/saved/" in little_course.run(a, script)
    assert (a / "flexnano" / "page_table.py").read_text() == "def (\n"


def test_drive_that_fails_is_told_and_stops_nothing(world: World, request: pytest.FixtureRequest) -> None:
    machine(world, request).run(
        """
        cell("from google.colab import drive; drive.mount(%r)" % str(root.parent / "drive"))
        cell(SETUP)
        real = os.fsync
        from course import drive as module
        def full(*_): raise OSError(28, "No space left on device")
        module.work, kept = type("W", (), {"write": staticmethod(full), "put": module.work.put}), module.work
        said = cell("%%exercise 3.1\\n" + PUT)
        assert "passed" in said and "could not be copied to Google Drive (No space left" in said, said
        module.work = kept
        assert "Drive" not in cell("%%exercise 3.1\\n" + WRONG_PUT)
        """
    )
    assert (
        "len(self.books)\n" in (world.folder / "drive" / settings.DRIVE_FOLDER / "flexnano/page_table.py").read_text()
    )


def test_without_drive_a_zip_carries_the_work(world: World, request: pytest.FixtureRequest) -> None:
    first, second = machine(world, request, "first"), machine(world, request, "second")
    first.run(
        """
        cell(SETUP)
        cell("%%exercise 3.1\\n" + PUT)
        assert "on its way" in cell("%course_save")
        """
    )
    assert zipfile.is_zipfile(world.folder / "downloads" / "flexnano-work.zip")
    second.run(
        """
        cell(SETUP)
        cell("from flexnano import Shelf; shelf = Shelf()")
        assert "waiting" in cell("shelf.put('a')")
        said = cell("%course_restore")
        assert "Restored: flexnano/page_table.py" in said and ".course/saved/" in said, said
        cell("assert shelf.put('a') == 0")
        """
    )


# -------------------------------------------------------------------------------------------------- clone and update


def test_offline_says_so_and_a_second_run_goes_on(world: World, request: pytest.FixtureRequest) -> None:
    one = machine(world, request)
    one.run(
        "said = cell(SETUP, ok=False); assert 'No module named' in said and 'missing? Clone' in said, said",
        online=False,
    )
    one.run("assert 'torch' in cell(SETUP)")
    one.run(
        "said = cell(SETUP); assert 'online?' in said and 'the one that is here is used' in said, said", online=False
    )


@pytest.mark.parametrize("half", ["an empty folder", "a killed clone", "a killed checkout", "a killed first cell"])
def test_half_a_clone_is_mended(half: str, world: World, request: pytest.FixtureRequest) -> None:
    one = machine(world, request, half.replace(" ", "-"))
    if half == "an empty folder":
        one.root.mkdir()
        (one.root / "notes.txt").write_text("mine")
    elif half == "a killed clone":
        git(one.content, "init", "--quiet", one.root.name)
    elif half == "a killed checkout":
        git(one.content, "clone", "--quiet", str(world.bare), one.root.name)
        git(one.root, "remote", "set-url", "origin", settings.REPOSITORY)
        for path in (one.root / "flexnano" / "masks.py", one.root / "solutions" / "flexnano" / "masks.py"):
            path.unlink()
    else:
        shutil.copytree(world.published / "course", one.content / "flexnano-course.part" / "course")
    one.run("cell(SETUP); cell('from flexnano import double, Shelf')")
    assert git(one.root, "status", "--porcelain", "--untracked-files=no") == ""
    kept = [path for path in one.content.rglob("notes.txt")]
    assert len(kept) == (half == "an empty folder")


def test_an_update_leaves_work_alone_and_brings_the_rest(world: World, request: pytest.FixtureRequest) -> None:
    one = machine(world, request)
    one.run("cell(SETUP); cell('%%exercise 3.1\\n' + PUT)")
    (one.root / "mine.txt").write_text("my notes")
    published = world.published / "solutions" / "flexnano"
    (published / "masks.py").write_text((published / "masks.py").read_text() + "\n\nNEW = 5\n")
    page_table = (published / "page_table.py").read_text()
    (published / "page_table.py").write_text(page_table.replace('"""Module 03."""', '"""Module 03, better told."""'))
    (world.published / "tests" / "module_04" / "drive.py").unlink()
    little_course.run(world.published, "from course import stubs; from pathlib import Path; stubs.make(Path.cwd())")
    (world.published / "mine.txt").write_text("not mine")
    world.publish("better")
    one.run(
        """
        said = cell(SETUP)
        assert "brought up to date" in said and "As you left them" in said and "flexnano/page_table.py" in said, said
        cell("from flexnano.masks import NEW; from flexnano import Shelf; assert NEW == 5 and Shelf().put('a') == 0")
        assert "brought up to date" not in cell(SETUP)
        """
    )
    assert (one.root / "mine.txt").read_text() == "my notes"
    assert "better told" in (one.root / "solutions" / "flexnano" / "page_table.py").read_text()
    assert not (one.root / "tests" / "module_04" / "drive.py").exists()
    changed = git(one.root, "diff", "--name-only", "HEAD").split()
    assert changed == ["flexnano/page_table.py", "mine.txt"], changed
    # A second update, with the same files still changed, and a commit of the learner's own after it.
    (world.published / "mine.txt").write_text("still not mine")
    world.publish("even better")
    one.run("said = cell(SETUP); assert 'brought up to date' in said and 'mine.txt' in said, said")
    assert (one.root / "mine.txt").read_text() == "my notes"
    git(one.root, "commit", "--quiet", "--all", "--message", "my work")
    (world.published / "mine.txt").write_text("never mine")
    world.publish("best")
    one.run("said = cell(SETUP); assert 'commits of its own' in said, said")
    (world.published / "mine.txt").unlink()
    world.publish("without it")


def test_an_update_that_is_killed_goes_on(world: World, request: pytest.FixtureRequest) -> None:
    one = machine(world, request)
    one.run("cell(SETUP); cell('%%exercise 3.1\\n' + PUT)")
    masks = world.published / "solutions" / "flexnano" / "masks.py"
    masks.write_text(masks.read_text() + "\n\nNEWEST = 6\n")
    little_course.run(world.published, "from course import stubs; from pathlib import Path; stubs.make(Path.cwd())")
    world.publish("newest")
    with pytest.raises(AssertionError):
        one.run(
            """
            import subprocess
            sys.path.insert(0, str(root))
            real = subprocess.run
            def run(command, *args, **more):
                if "reset" in command:
                    os._exit(9)
                return real(command, *args, **more)
            subprocess.run = run
            cell(SETUP)
            """
        )
    one.run(
        """
        said = cell(SETUP)
        assert "brought up to date" in said and "As you left" not in said, said
        cell("from flexnano.masks import NEWEST; from flexnano import Shelf; assert Shelf().put('a') == 0")
        """
    )
    assert git(one.root, "diff", "--name-only", "HEAD").split() == ["flexnano/page_table.py"]


# -------------------------------------------------------------------------------------------------------- packages


def wheel(folder: Path, name: str, version: str, requires: tuple[str, ...] = ()) -> None:
    """A wheel that holds nothing."""
    info = f"{name}-{version}.dist-info"
    needs = "".join(f"Requires-Dist: {one}\n" for one in requires)
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{name}.py", f"version = {version!r}\n")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: a\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")


def install(world: World, requirements: str, tmp_path: Path, pip: bool = True) -> tuple[str, str]:
    """Install by `install_missing` from a folder of wheels.  Returns what it told, and torch's version afterwards."""
    (tmp_path / "requirements.txt").write_text(requirements)
    script = f"""
        import sys, importlib, importlib.metadata
        sys.path.append({str(ROOT)!r})
        from pathlib import Path
        from course import colab, environment
        if not {pip}:
            environment._pip = lambda *_: 1 / 0
        print("\\n".join(colab.install_missing(Path({str(tmp_path)!r}))))
        importlib.invalidate_caches()
        print("torch", importlib.metadata.version("torch"))
    """
    done = subprocess.run(
        [str(world.python), "-c", textwrap.dedent(script)],
        env={**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path), "PIP_NO_CACHE_DIR": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told, _, torch = done.stdout.rpartition("torch ")
    return told, torch.strip()


def test_what_is_there_needs_no_pip(world: World, tmp_path: Path) -> None:
    told, _ = install(world, (ROOT / "requirements.txt").read_text(), tmp_path, pip=False)
    assert not told.strip()


def test_only_what_is_missing_is_installed_and_torch_stays(world: World, tmp_path: Path) -> None:
    import torch

    wheel(tmp_path, "littlepackage", "1.5", requires=("torch", "numpy"))
    wheel(tmp_path, "torch", "99.0")
    wheel(tmp_path, "numpy", "99.0")
    told, version = install(world, "torch>=2.11\nnumpy>=2.0\nlittlepackage>=1.2\n", tmp_path)
    assert "Installing littlepackage>=1.2 …" in told and version == torch.__version__
    # A package that insists on another torch is refused, not torch replaced.
    wheel(tmp_path, "greedypackage", "2.0", requires=("torch>=99",))
    told, version = install(world, "torch>=2.11\ngreedypackage>=1\n", tmp_path)
    assert "pip could not install" in told and version == torch.__version__


def test_a_torch_that_is_too_old_is_told_and_left(world: World, tmp_path: Path) -> None:
    import torch

    wheel(tmp_path, "torch", "99.0")
    told, version = install(world, "torch>=98\n", tmp_path)
    assert "never installs it itself" in told and "Installing" not in told and version == torch.__version__


# --------------------------------------------------------------------------------------------------------- machine


@pytest.mark.parametrize(
    ("capability", "said"),
    [
        ((7, 5), "GPU: Tesla T4, compute capability 7.5; float16; attention by gathered pages"),
        ((8, 9), "GPU: Tesla T4, compute capability 8.9; bfloat16; attention by compiled FlexAttention"),
    ],
)
def test_the_gpu_and_what_it_means_are_told(
    capability: tuple[int, int], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.delenv("FLEXNANO_ATTENTION", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    lines: list[Any] = colab.machine()
    assert lines[1].startswith(said) and torch.__version__ in lines[0]


def test_at_home_nothing_is_fetched_installed_or_mounted(world: World, request: pytest.FixtureRequest) -> None:
    one = machine(world, request)
    root = one.content / "work" / "my course"
    root.parent.mkdir()
    git(root.parent, "clone", "--quiet", str(world.bare), root.name)
    (root / "notebooks").mkdir(exist_ok=True)
    one.run(
        f"""
        said = cell(SETUP)
        assert "Your work: {root}/flexnano" in said and "Drive" not in said and "online" not in said, said
        assert "passed" in cell("%%exercise 3.1\\n" + PUT)
        assert "Colab only" in cell("%course_drive")
        assert "flexnano-work.zip" in cell("%course_save") and "Name the zip" in cell("%course_restore")
        assert "nothing, since all of it is here" in cell("%course_restore {root}/.course/flexnano-work.zip")
        assert "can't be read" in cell("%course_restore no.zip")
        import subprocess
        child = [sys.executable, "-c", "import course; print(course.__file__)"]
        said = subprocess.run(child, capture_output=True, text=True, cwd="/").stdout
        assert said.strip() == "{root}/course/__init__.py", said
        """,
        online=False,
        colab=False,
        cwd=root / "notebooks",
    )
    assert not one.root.exists()
    assert "append" in (root / "flexnano" / "page_table.py").read_text()
