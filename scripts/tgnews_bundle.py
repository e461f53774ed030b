"""Build one archive with `tgnews` and all that it needs, for a Linux without Python: `make tgnews-bundle`.

The interpreter comes from freeze-core: CPython linked into one file that needs nothing but glibc, with the standard
library's compiled modules beside it. Its start-up runs `__init__tgnews` from the folder `lib`, into which this script copies the
standard library, the packages that `tgnews` imports and those modules of Palate that it can reach. Wheels keep their layout, so
their shared libraries find one another.
"""

from __future__ import annotations

import argparse
import ast
import compileall
import gzip
import platform
import re
import shutil
import sys
import sysconfig
import tarfile
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, distribution
from importlib.util import find_spec
from pathlib import Path, PurePath

ROOT = Path(__file__).parent.parent
ENTRY = "palate.tgnews"

PACKAGES = [
    "numpy", "lxml", "msgspec", "fasttext-predict", "sqlalchemy", "alembic", "mako",
    "markupsafe", "typing-extensions", "uvicorn", "click", "h11", "charset-normalizer", "starlette", "anyio", "idna", "httptools",
    "uvloop", "itsdangerous",
]  # fmt: skip
"""Distributions that go in; other requirements of theirs are for what `tgnews` doesn't do."""

FORBIDDEN = ("numba", "llvmlite", "faiss", "catboost", "pyarrow", "polars", "scipy", "pandas", "typer", "rich", "httpx")
"""Packages too large or too slow to load; nothing that `tgnews` can reach may import them when it is loaded."""

SOURCES = ("palate.migrations",)
"""Packages whose modules are read as source while they run."""

NO_STDLIB = [
    "test", "ensurepip", "idlelib", "lib2to3", "tkinter", "turtledemo", "turtle.py", "pydoc_data", "distutils",
    "venv", "site-packages", "__pycache__", "antigravity.py", "this.py",
]  # fmt: skip
NO_EXTENSIONS = (
    "_test",
    "xx",
    "_tkinter",
    "_curses",
    "_gdbm",
    "_dbm",
    "readline",
    "nis",
    "ossaudiodev",
    "_crypt",
    "spwd",
)
NO_FILES = ("tests", "test", "testing", "__pycache__", "include", "isoschematron", "f2py", "templates", "_pyinstaller")
NO_SUFFIXES = (".pyi", ".pyx", ".pxd", ".pxi", ".h", ".c", ".cpp", ".a", ".nbc", ".nbi", ".md", ".typed")

OTHER_LICENCES = (
    "palate: Apache-2.0",
    "CPython, its interpreter and standard library: PSF-2.0",
    "OpenSSL (libssl, libcrypto): Apache-2.0",
    "SQLite: public domain",
    "zlib, bzip2, liblzma, libffi, libuuid, expat: Zlib, bzip2-1.0.6, 0BSD or public domain, MIT, BSD-3-Clause, MIT",
    "OpenBLAS in numpy: BSD-3-Clause; libgfortran and libquadmath in numpy: GPL-3.0 with the GCC runtime exception, LGPL-2.1",
    "libstdc++, libgcc: GPL-3.0 with the GCC runtime exception",
    "libxml2 and libxslt in lxml: MIT",
    "lid.176.ftz in palate (fastText's language model): CC-BY-SA-3.0, https://creativecommons.org/licenses/by-sa/3.0/",
)

START = """
import os
import sys


def run(name):
    load_runtime()
    from palate.tgnews import main

    main()


def load_runtime():
    # The host's own C++ runtime is as new as its glibc, ours only as new as the glibc of the machine that packed it.
    try:
        with open("/etc/ld.so.cache", "rb") as cache:
            if b"libstdc++.so.6" in cache.read():
                return
    except OSError:
        pass
    from ctypes import RTLD_GLOBAL, CDLL

    for library in ("libgcc_s.so.1", "libstdc++.so.6"):
        CDLL(os.path.join(sys.prefix, "lib", "runtime", library), RTLD_GLOBAL)
"""


def main() -> None:
    """Build the archive and say how large it is."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--to", type=Path, default=ROOT / "dist", help="folder for the archive (default: dist)")
    folder = parser.parse_args().to / f"tgnews-{platform.system().lower()}-{platform.machine()}"
    shutil.rmtree(folder, ignore_errors=True)
    library = folder / "lib"
    library.mkdir(parents=True)
    copy_interpreter(folder)
    copy_runtime(library)
    copy_standard_library(library)
    for name in PACKAGES:
        copy_distribution(distribution(name), library)
    copy_palate(library)
    copy_licences(folder)
    compile_all(library)
    archive = pack(folder)
    print(
        f"{archive}: {archive.stat().st_size / 1e6:.1f} MB, unpacked {size(folder) / 1e6:.1f} MB, needs glibc {glibc(folder)}"
    )


def copy_interpreter(folder: Path) -> None:
    """The interpreter as `tgnews`, the standard library's compiled modules, and the shared libraries that these load.

    It looks for libraries in `lib`, on behalf of all that it loads.
    """
    freezer, library = _place("freeze_core"), folder / "lib"
    suffix = f"cpython-{sys.version_info.major}{sys.version_info.minor}-{sysconfig.get_config_var('MULTIARCH')}"
    shutil.copy(freezer / "bases" / f"console-{suffix}", folder / "tgnews")
    for module in (freezer / "lib").iterdir():
        if not module.name.startswith(NO_EXTENSIONS):
            shutil.copy(module, library)
    missing = {path.name: path for path in (freezer.parent / "freeze_core.libs").iterdir()}
    while needed := [path for path in missing.values() if _is_needed(path.name, library)]:
        for path in needed:
            shutil.copy(missing.pop(path.name), library)


def copy_runtime(library: Path) -> None:
    """What compiled modules expect of every Linux and is no part of glibc: zlib, and for hosts without them C++'s libraries."""
    shutil.copy(_loaded("zlib", "libz.so.1"), library)
    (library / "runtime").mkdir()
    for name in ("libgcc_s.so.1", "libstdc++.so.6"):
        shutil.copy(_loaded("numpy", name), library / "runtime")


def _loaded(module: str, library: str) -> Path:
    """The file of a shared library that a module of this interpreter loads."""
    __import__(module)
    maps = Path("/proc/self/maps").read_text().splitlines()
    found = (Path(line.split()[-1]).with_name(library) for line in maps if f"/{library.partition('.so')[0]}.so" in line)
    path = next((path for path in found if path.exists()), None)
    return path if path else sys.exit(f"{library} isn't among the libraries of {sys.executable}.")


def _is_needed(name: str, library: Path) -> bool:
    return any(name.encode() in path.read_bytes() for path in library.glob("*.so*"))


def copy_standard_library(library: Path) -> None:
    """Its Python modules, but for tests, tools and what needs a screen."""
    shutil.copytree(
        sysconfig.get_path("stdlib"),
        library,
        dirs_exist_ok=True,
        ignore=shutil.ignore_patterns("lib-dynload", "config-*", *NO_STDLIB),
    )


def copy_distribution(found: Distribution, library: Path) -> None:
    """The files of an installed package that its modules use when they run."""
    for file in found.files or ():
        parts = set(file.parts)
        if (
            file.suffix in NO_SUFFIXES
            or parts & {"..", *NO_FILES}
            or any(part.endswith(".dist-info") for part in parts)
        ):
            continue
        target = library / file
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(str(found.locate_file(file)), target)


def copy_palate(library: Path) -> None:
    """The modules that `tgnews` can reach, with the data of their packages."""
    source = ROOT / "src"
    for module in reachable(ENTRY):
        path = _path(module)
        target = library / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
        if path.name == "__init__.py":
            _copy_data(path.parent, target.parent)
    for package in SOURCES:  # found by name while they run, so that no import leads there
        folder = Path(*package.split("."))
        shutil.copytree(
            source / folder, library / folder, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True
        )
    (library / "__init__tgnews.py").write_text(START)


def _copy_data(package: Path, target: Path) -> None:
    for path in package.iterdir():
        if path.is_file() and path.suffix not in (".py", *NO_SUFFIXES):
            shutil.copy(path, target)


def reachable(entry: str) -> list[str]:
    """Names of Palate's modules that a module imports, at once or late, itself and their packages included."""
    found, waiting = set(), {entry}
    while waiting:
        module = waiting.pop()
        found.add(module)
        waiting |= {name for name in imported(module) if name.split(".")[0] == "palate"} | {module.rpartition(".")[0]}
        waiting -= found | {""}
    return sorted(found)


def imported(module: str, late: bool = True) -> set[str]:
    """Names of the modules that a module of Palate imports; without `late` only those that it imports when it is loaded."""
    names = set()
    for node in _statements(ast.parse(_path(module).read_text()), late):
        if isinstance(node, ast.Import):
            names |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            parts = {f"{node.module}.{name.name}" for name in node.names}
            names |= {node.module} | {part for part in parts if part.startswith("palate.") and _exists(part)}
    return names


def _statements(tree: ast.AST, late: bool) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        if late or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _statements(node, late)


def _path(module: str) -> Path:
    whole = ROOT.joinpath("src", *module.split("."))
    return whole / "__init__.py" if whole.is_dir() else whole.with_suffix(".py")


def _exists(module: str) -> bool:
    return _path(module).is_file()


def _place(package: str) -> Path:
    found = find_spec(package)
    if found is None or found.origin is None:
        sys.exit(f"{package} isn't installed: run `make tgnews-bundle`, which installs it.")
    return Path(found.origin).parent


def copy_licences(folder: Path) -> None:
    """The licences of all that is inside, and `LICENCES.txt` with their names."""
    lines = list(OTHER_LICENCES)
    own = [ROOT / "LICENSE", ROOT / "NOTICE"]
    for name, files in (("palate", own), ("python", [Path(sysconfig.get_path("stdlib")) / "LICENSE.txt"])):
        _copy_into(folder / "licences" / name, files)
    for found in map(distribution, ("freeze-core", *PACKAGES)):
        files = [Path(str(found.locate_file(file))) for file in found.files or () if _is_licence(file)]
        _copy_into(folder / "licences" / found.name, files)
        lines.append(f"{found.name} {found.version}: {_licence(found)}")
    (folder / "LICENCES.txt").write_text("\n".join([*lines, ""]))


def _copy_into(folder: Path, files: Iterable[Path]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        shutil.copy(file, folder)


def _is_licence(file: PurePath) -> bool:
    name = file.name.upper()
    return ".dist-info" in str(file) and any(
        word in name for word in ("LICENSE", "LICENCE", "COPYING", "NOTICE", "AUTHORS")
    )


def _licence(found: Distribution) -> str:
    told = found.metadata
    classified = [one.rpartition(" :: ")[2] for one in told.get_all("Classifier") or () if one.startswith("License")]
    return told["License-Expression"] or ", ".join(classified) or (told["License"] or "see licences/").split("\n")[0]


def compile_all(library: Path) -> None:
    """Compiled modules in place of their sources, which nothing reads."""
    kept = [library.joinpath(*package.split(".")) for package in SOURCES]
    compileall.compile_dir(library, legacy=True, quiet=1, stripdir=str(library), workers=0)
    for path in library.rglob("*.py"):
        if not any(path.is_relative_to(package) for package in kept):
            path.unlink()


def pack(folder: Path) -> Path:
    """The folder as one archive, the same for the same content."""
    archive = folder.with_suffix(".tar.gz")
    with (
        open(archive, "wb") as raw,
        gzip.GzipFile("", "wb", 9, raw, mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w") as tar,
    ):
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                tar.add(path, path.relative_to(folder.parent), filter=_anonymous)
    return archive


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    member.mode = 0o755 if member.mode & 0o100 else 0o644
    return member


def size(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def glibc(folder: Path) -> str:
    """The newest version of glibc that anything asks for; the libraries for hosts without a C++ runtime may ask for more."""
    compiled = [folder / "tgnews", *(path for path in folder.rglob("*.so*") if path.parent.name != "runtime")]
    return (
        f"2.{max(int(minor) for path in compiled for minor in re.findall(rb'GLIBC_2[.]([0-9]+)', path.read_bytes()))}"
    )


if __name__ == "__main__":
    main()
