"""Definition files: which files are read, and loading by path, anew each time and without traces in the process."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from feature_store import FeatureStore
from feature_store.definitions.loading import load_definitions
from feature_store.errors import ConfigError, DefinitionError

HEAD = "from feature_store import *\n"
ENTITY = HEAD + "user = Entity('user')\n"


def view(name: str, field: str = "x") -> str:
    return f"{ENTITY}v = FeatureView({name!r}, entities=[user], schema=[Field({field!r}, Float32)])\n"


def write(folder: Path, **files: str) -> Path:
    """Write files by their paths without `.py`. `__in__` stands for a slash. Returns the folder."""
    for name, text in files.items():
        path = folder / f"{name.replace('__in__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    return folder


def views(folder: Path, *names: str) -> list[str]:
    return list(load_definitions(folder, names).feature_views)


# -- by path, under private names ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["calendar", "email", "types", "queue", "numpy", "pytest", "site"])
def test_a_file_may_have_the_name_of_any_other_module(tmp_path: Path, name: str) -> None:
    write(tmp_path, features=view("a") + "import calendar, numpy as np\nnp.zeros, calendar.monthrange\n")
    assert views(write(tmp_path, **{name if name != "numpy" else "statistics": view("b")})) == ["a", "b"]


def test_a_load_neither_adds_nor_removes_modules_of_the_process(tmp_path: Path) -> None:
    write(tmp_path, shared=ENTITY, features=f"from shared import user\nimport sys, colorsys\n{view('a')}")
    library = write(tmp_path / "lib", installed_in_the_folder="") / "installed_in_the_folder.py"
    assert library.exists()
    sys.modules.pop("colorsys", None)
    before = set(sys.modules)
    assert views(tmp_path) == ["a"]
    assert set(sys.modules) - before == {"colorsys"}, "a library that a file is the first to import stays imported"


def test_each_load_sees_the_files_as_they_are(tmp_path: Path) -> None:
    write(
        tmp_path, shared="NAME = 'aa'\n", features=f"from shared import NAME\n{view('x')}".replace("'x', e", "NAME, e")
    )
    os.utime(tmp_path / "shared.py", ns=(10**18, 10**18))
    assert views(tmp_path) == ["aa"]
    # A file of the same size and time: cached bytecode or lines would not notice the change.
    write(tmp_path, shared="NAME = 'bb'\n")
    os.utime(tmp_path / "shared.py", ns=(10**18, 10**18))
    assert views(tmp_path) == ["bb"]
    assert not (tmp_path / "__pycache__").exists()


def test_an_open_store_plans_and_applies_what_the_files_say_now(tmp_path: Path) -> None:
    (tmp_path / "feature_store.yaml").write_text("project: p\n")
    with FeatureStore(write(tmp_path, features=view("first"))) as store:
        assert [change.name for change in store.plan().changes] == ["user", "first"]
        write(tmp_path, features=view("second"))
        assert [change.name for change in store.plan().changes] == ["user", "second"]


def test_projects_with_equal_file_names_are_separate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = write(tmp_path / "a", features=view("a")), write(tmp_path / "b", features=view("b"))
    monkeypatch.syspath_prepend(a)
    monkeypatch.setitem(sys.modules, "features", sys)  # a name that an application may have for a module of its own
    assert [views(a), views(b)] == [["a"], ["b"]]
    found: dict[str, list[str]] = {}
    threads = [threading.Thread(target=lambda f=f: found.update({f.name: views(f)})) for f in (a, b) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {"a": ["a"], "b": ["b"]}


@pytest.mark.parametrize(
    "line",
    [
        "from shared import user",
        "from .shared import user",
        "from . import shared; user = shared.user",
        "import shared; user = shared.user",
        "import deep.er.shared as s; user = s.user",
        "from deep.er import shared; user = shared.user",
        "from deep import *; user = er.shared.user",
        "from .deep.er.shared import user",
    ],
)
def test_files_import_each_other_once_as_scripts_of_a_folder_do(tmp_path: Path, line: str) -> None:
    write(
        tmp_path,
        shared=ENTITY,
        deep__in____init__="from .er import shared as _\nfrom . import er\n__all__ = ['er']\n",
        deep__in__er__in__shared="from shared import user\n",
        features=f"{HEAD}{line}\nassert type(user) is Entity\na = FeatureView('a', entities=[user], schema=[Field('x', Int32)])\n",
        more=f"from shared import user\nfrom feature_store import *\n{view('b').partition(ENTITY)[2]}",
    )
    assert views(tmp_path) == ["a", "b"]


def test_a_folder_that_is_a_package_imports_itself_by_its_full_name(tmp_path: Path) -> None:
    project = tmp_path / "shop" / "store"
    write(tmp_path, shop__in____init__="NAME = 'a'\n", shop__in__store__in____init__="", shop__in__rates="RATE = 2\n")
    write(project, users=ENTITY)
    text = "from shop.store.users import user\nfrom ..rates import RATE\nfrom shop import NAME\n"
    write(
        project,
        features=f"{HEAD}{text}assert RATE == 2\nv = FeatureView(NAME, entities=[user], schema=[Field('x', Bool)])\n",
    )
    assert views(project) == ["a"]
    assert views(tmp_path, "shop.store") == ["a"]


def test_functions_import_when_they_run_and_keep_the_names_of_their_files(tmp_path: Path) -> None:
    write(
        tmp_path,
        shared="import numpy as np\ndef half(x): return x / np.float32(2)\n",
        features=HEAD
        + "@on_demand_feature_view(sources=[RequestSource('r', [Field('x', Float32)])], schema=[Field('y', Float32)])\n"
        "def halved(inputs):\n    from shared import half\n    return {'y': half(inputs['x'])}\n",
    )
    before = set(sys.modules)
    (found,) = load_definitions(tmp_path).on_demand_feature_views.values()
    assert found({"x": 4.0}) == {"y": 2.0}
    assert found.function == "features:halved"
    assert set(sys.modules) == before
    (again,) = load_definitions(tmp_path).on_demand_feature_views.values()
    assert (again.function, again.digest) == (found.function, found.digest)
    file = tmp_path / "features.py"
    file.write_text(file.read_text().replace("half(inputs['x'])", "half(inputs['x']) + 0"))
    (changed,) = load_definitions(tmp_path).on_demand_feature_views.values()
    assert changed.digest != found.digest, "the digest is of the source, which is read by path"


def test_values_in_collections_count_and_other_values_do_not(tmp_path: Path) -> None:
    write(
        tmp_path,
        features=f"""{ENTITY}
def make(name): return FeatureView(name, entities=[user], schema=[Field('x', Int32)])
listed, paired = [make('a')], (make('b'), [make('c')])
named = {{'d': make('d'), 'more': {{'e': make('e')}}}}
named['itself'] = named
class Holder: kept = make('f')
def unused(): return make('g')
unbound = (make(f'h{{i}}') for i in range(2))
""",
    )
    assert views(tmp_path) == ["a", "b", "c", "d", "e"]


def test_output_of_definition_files_goes_to_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert views(write(tmp_path, features="print('loading')\n" + view("a"))) == ["a"]
    assert capsys.readouterr() == ("", "loading\n")


# -- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("import nothing_of_that_name", r"^features\.py, line 2: .*ModuleNotFoundError"),
        ("import sys; sys.exit()", r"^features\.py, line 2: .*SystemExit.*`definitions:`"),
        ("raise BaseException('odd')", r"^features\.py, line 2: .*BaseException: odd"),
        ("1 +", r"^features\.py, line 2: .*SyntaxError"),
        ("Field('a', Int32, default='x')", r"^features\.py, line 2: Field\('a'\)\.default"),
        ("import broken", r"^broken\.py, line 1: .*ZeroDivisionError"),
        ("from types import Money", r"^features\.py, line 2: .*standard library.*from \.types"),
        ("from . import missing", r"^features\.py, line 2: .*ImportError"),
        ("from .missing import a", r"^features\.py, line 2: .*ModuleNotFoundError.*'missing'"),
    ],
)
def test_an_exception_of_a_file_is_an_error_that_names_the_file(tmp_path: Path, text: str, says: str) -> None:
    write(tmp_path, features=HEAD + text, broken="1 / 0\n")
    with pytest.raises(DefinitionError, match=says):
        load_definitions(tmp_path)


def test_the_user_can_interrupt(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        load_definitions(write(tmp_path, features="raise KeyboardInterrupt"))


def test_a_definition_file_that_opens_its_own_project_is_refused(tmp_path: Path) -> None:
    (tmp_path / "feature_store.yaml").write_text("project: p\n")
    write(tmp_path, features=view("a") + "FeatureStore(__file__.rpartition('/')[0]).definitions\n")
    with pytest.raises(DefinitionError, match=r"^features\.py, line 4: .*opens its own project.*__main__"):
        load_definitions(tmp_path)


# -- which files -----------------------------------------------------------------------------------------------------

SCRIPTS = {
    "main": "from feature_store import FeatureStore\nFeatureStore('.').apply()\n",
    "load": "import sys, feature_store as fs\nfor row in sys.stdin: print(fs.FeatureStore(row))\n",
    "prepare": "from features import v\nraise SystemExit('data are written anew')\n",
    "script": view("script") + "FeatureStore('.').apply()\n",
    "guarded_only": HEAD + "if __name__ == '__main__':\n    Entity('guarded')\n",
    "in_a_function": HEAD + "def f():\n    return Entity('unused')\n",
    "old_syntax": "print 'a script for another Python'\n",
    "test_features": view("test"),
    "conftest": view("conftest"),
    "_private": view("private"),
}


def test_scripts_beside_the_definitions_are_not_run(tmp_path: Path) -> None:
    write(tmp_path, features=view("a"), **SCRIPTS)
    assert views(tmp_path) == ["a"]


@pytest.mark.parametrize(
    "text",
    [
        view("b"),
        "import feature_store as fs\nb = fs.FeatureView('b', entities=[fs.Entity('user')], schema=[fs.Field('x', fs.Int32)])\n",
        "from feature_store import FeatureView as V\nfrom features import user\nfrom feature_store import Field, Int32\n"
        "def one(): return two()\ndef two(): return V('b', entities=[user], schema=[Field('x', Int32)])\nmade = [one() for _ in 'a']\n",
        view("b") + "if __name__ == '__main__':\n    FeatureStore('.').apply()\n",
    ],
)
def test_every_file_that_makes_definitions_is_read(tmp_path: Path, text: str) -> None:
    assert views(write(tmp_path, features=view("a"), more=text)) == ["a", "b"]


def test_features_py_is_always_read(tmp_path: Path) -> None:
    write(
        tmp_path,
        factory=f"{HEAD}def make():\n    return Entity('made')\n",
        features="from factory import make\na = make()\n",
    )
    assert list(load_definitions(tmp_path).entities) == ["made"]


def test_definitions_are_named_by_file_list_glob_folder_module_and_package(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "project",
        a=view("a"),
        b=view("b"),
        defs__in__c=view("c"),
        defs__in__sub__in__d=view("d"),
        defs__in___private=view("private"),
    )
    environment = write(folder / "defs" / "env" / "lib", library="raise SystemExit\n").parent
    (environment / "pyvenv.cfg").touch()
    for name in (".hidden", "tests", "__pycache__"):
        write(folder / "defs" / name, foreign="raise SystemExit\n")
    (folder / "defs" / "loop").symlink_to(folder / "defs")
    write(tmp_path / "outside", e=view("e"))
    assert views(folder, "a.py") == ["a"]
    assert views(folder, "a.py", "b.py", "a.py") == ["a", "b"]
    assert views(folder, "*.py") == ["a", "b"]
    assert views(folder, "defs/*.py") == ["c"]
    assert views(folder, "**/*.py") == ["a", "b", "c", "d"]
    assert views(folder, "defs/**/[d]*.py") == ["d"]
    assert views(folder, "defs") == ["c", "d", "private"], "every file of a folder that is named counts"
    assert views(folder, "defs.sub.d") == ["d"]
    assert views(folder, "defs.sub") == ["d"]
    assert views(folder, "../outside/*.py") == ["e"]
    assert views(folder, str(tmp_path / "outside" / "e.py")) == ["e"]


def test_an_installed_package_is_loaded_from_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = write(tmp_path / "installed", shop_features__in____init__="", shop_features__in__users=ENTITY)
    text = f"{HEAD}from shop_features.users import user\na = FeatureView('a', entities=[user], schema=[Field('x', Bool)])\n"
    write(installed, shop_features__in__products=text)
    monkeypatch.syspath_prepend(installed)
    (tmp_path / "project").mkdir()
    assert views(tmp_path / "project", "shop_features") == ["a"]
    assert views(tmp_path / "project", "shop_features.products") == ["a"]
    assert not [name for name in sys.modules if "shop_features" in name]


@pytest.mark.parametrize("name", ["nothing.py", "no/folder", "*.nothing", "not_a_module", "sys", "os.path", "a-b"])
def test_a_name_without_files_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DefinitionError, match=r"feature_store\.yaml: definitions"):
        views(write(tmp_path, features=view("a")), name)
    with pytest.raises(DefinitionError, match="Python files with definitions"):
        views(tmp_path / "tests")


def test_the_configuration_takes_one_name_or_several(tmp_path: Path) -> None:
    write(tmp_path, a=view("a"), b=view("b"))
    for text, expected in (("a.py", ["a"]), ("[a.py, b.py]", ["a", "b"]), ('"[ab].py"', ["a", "b"])):
        (tmp_path / "feature_store.yaml").write_text(f"project: p\ndefinitions: {text}\n")
        assert list(FeatureStore(tmp_path).definitions.feature_views) == expected
    (tmp_path / "feature_store.yaml").write_text("project: p\ndefinitions: ['']\n")
    with pytest.raises(ConfigError, match="definitions"):
        FeatureStore(tmp_path)


def test_a_program_saved_beside_the_definitions_runs_once(tmp_path: Path) -> None:
    (tmp_path / "feature_store.yaml").write_text("project: p\n")
    program = "from feature_store import FeatureStore\nprint(FeatureStore('.').plan())\nprint('once')\n"
    write(tmp_path, features=view("a"), main=program)
    ran = subprocess.run([sys.executable, "main.py"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ran.stdout.count("once") == 1
    assert "create FeatureView a" in ran.stdout
