"""From a tree of files to a .deb that is the same bytes each time."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edged import __version__
from tools.debian import manual
from tools.debian.native import build_root, native
from tools.debian.roots import debian, inside
from tools.debian.sources import install_wheels

ROOT = Path(__file__).parents[2]
FILES = Path(__file__).parent / "files"
PYTHONS = {12: "3.11", 13: "3.13"}
"""The Python of each Debian release: the package has compiled modules and depends on just this one."""

HOME = "usr/lib/edged"
# What packages bring for compiling against them, for type checkers, and for their own tests.
_NOT_SHIPPED = (
    "*.pyi", "*.pyx", "*.pxd", "*.c", "*.h", "*.a", "*_tests.*.so", "tests", "bin",
    "numpy/distutils", "numpy/f2py",
    "numpy/_pyinstaller", "numpy/random/_examples",
)  # fmt: skip
_SCRIPTS = ("postinst", "prerm", "postrm")
_STRIP = {"amd64": "strip", "arm64": "aarch64-linux-gnu-strip"}
_MAINTAINER = "edged maintainers <maintainers@edged.example>"
_DESCRIPTION = """\
local language-model daemon
 edged turns a small device into a dependable language-model service: devices
 publish prompts over MQTT, programs and people send them to a Unix socket, and
 a small GGUF model answers on the device itself.
 .
 The model is not part of the package: edgectl model fetch brings one."""


@dataclass(frozen=True)
class Target:
    """What a package is for."""

    release: int
    architecture: str

    @property
    def python(self) -> str:
        """The Python that it depends on, as 3.11."""
        return PYTHONS[self.release]

    @property
    def version(self) -> str:
        """The version in Debian's form: an upgrade of Debian brings a greater one."""
        return f"{__version__}-1~deb{self.release}u1"

    @property
    def file_name(self) -> str:
        """Debian's name of the file."""
        return f"edged_{self.version}_{self.architecture}.deb"


def build(target: Target, out: Path, epoch: int) -> Path:
    """Make the package and return its path.

    Args:
        target: what it is for.
        out: the directory that it goes to.
        epoch: the time of all files, in seconds since 1970.
    """
    root = build_root()
    stage = root / "build/stage"
    shutil.rmtree(stage, ignore_errors=True)
    _environment(stage / HOME, target)
    objects = (f"/{path.relative_to(root)}" for path in stage.rglob("*.so*") if path.parent.suffix != ".libs")
    inside(root, _STRIP[target.architecture], "--strip-unneeded", *objects)
    # Without a look at the sources' times: the clock of a Pi is not to be trusted, and nobody edits them.
    with _python(target.release, stage) as (python_root, place):
        inside(
            python_root, "python3", "-m", "compileall", "-q", "-j2", "--invalidation-mode=unchecked-hash",
            "-s", place, f"{place}/{HOME}/lib",
        )  # fmt: skip
    _integrate(stage, target, epoch)
    _control(stage, target)
    _settle(stage, epoch)
    package = out / target.file_name
    out.mkdir(parents=True, exist_ok=True)
    making = package.with_suffix(".making")  # what was interrupted is taken for no package
    command = ["dpkg-deb", "--root-owner-group", "-Zxz", "--build", stage, making]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(epoch)}
    subprocess.run(list(map(str, command)), check=True, env=environment, stdout=subprocess.DEVNULL)
    making.rename(package)
    shutil.rmtree(stage)
    return package


@contextmanager
def _python(release: int, stage: Path) -> Iterator[tuple[Path, str]]:
    """Lend the stage to a Debian of that release; give its root, and where the stage is in there."""
    root = build_root() if release == 12 else debian("python", release, "amd64", ("python3", "systemd"))
    lent = root / "build/stage"
    lent.parent.mkdir(exist_ok=True)
    if lent != stage:
        shutil.rmtree(lent, ignore_errors=True)
        stage.rename(lent)
    yield root, "/build/stage"
    if lent != stage:
        lent.rename(stage)


def _environment(home: Path, target: Target) -> None:
    """Lay out Python, edged and what it needs as a virtual environment is laid out."""
    packages = home / f"lib/python{target.python}/site-packages"
    install_wheels(packages, target.python, target.architecture)
    for path in [path for pattern in _NOT_SHIPPED for path in packages.rglob(pattern)]:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    shutil.copytree(native(target.architecture), packages, dirs_exist_ok=True)
    for name in ours("edged"):
        (packages / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, packages / name)
    (home / "bin").mkdir()
    (home / "bin/python").symlink_to(f"../../../bin/python{target.python}")
    (home / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n")
    for program, module in {"edged": "edged.__main__", "edgectl": "edged.cli.main"}.items():
        start = f"#!/{HOME}/bin/python -I\nimport sys\n\nfrom {module} import main\n\nsys.exit(main())\n"
        (home / "bin" / program).write_text(start)


def _integrate(stage: Path, target: Target, epoch: int) -> None:
    """Put what the system looks for where it looks for it."""
    # Debian 13 takes units from below /usr alone, and 12 keeps them below /.
    units = stage / ("lib" if target.release == 12 else "usr/lib") / "systemd/system"
    shares = stage / "usr/share"
    document = shares / "doc/edged"
    texts = {
        units / "edged.service": (ROOT / "systemd/edged.service").read_bytes(),
        units / "edged.socket": (ROOT / "systemd/edged.socket").read_bytes(),
        stage / "usr/lib/sysusers.d/edged.conf": (ROOT / "systemd/edged.sysusers").read_bytes(),
        stage / "usr/lib/tmpfiles.d/edged.conf": (ROOT / "systemd/edged.tmpfiles").read_bytes(),
        stage / "etc/edged/edged.toml": (ROOT / "config/edged.toml").read_bytes(),
        document / "examples/vcgencmd.conf": (ROOT / "systemd/vcgencmd.conf").read_bytes(),
        document / "copyright": (FILES / "copyright").read_bytes(),
        document / "changelog.gz": _packed((ROOT / "CHANGELOG.md").read_text()),
        document / "changelog.Debian.gz": _packed(_changelog(target, epoch)),
        shares / "lintian/overrides/edged": (FILES / "lintian-overrides").read_bytes(),
        shares / "man/man8/edged.8.gz": _packed(manual.edged_page(_day(epoch))),
        shares / "man/man1/edgectl.1.gz": _packed(manual.edgectl_page(_day(epoch))),
        shares / "bash-completion/completions/edgectl": _completion("bash"),
        shares / "zsh/vendor-completions/_edgectl": _completion("zsh"),
    }
    for path, content in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (stage / "usr/bin").mkdir()
    for program in ("edged", "edgectl"):
        (stage / "usr/bin" / program).symlink_to(f"../lib/edged/bin/{program}")


def _control(stage: Path, target: Target) -> None:
    control = stage / "DEBIAN"
    files = sorted(path for path in stage.rglob("*") if path.is_file() and not path.is_symlink())
    control.mkdir()
    needs = (
        f"python{target.python}", "libc6 (>= 2.36)", "libgomp1", "libstdc++6 (>= 12)", "libgcc-s1",
        # Containers do without the whole of it.
        "systemd | systemd-standalone-sysusers", "systemd | systemd-standalone-tmpfiles",
        "init-system-helpers (>= 1.54)", "debconf (>= 0.5) | debconf-2.0",
    )  # fmt: skip
    fields = {
        "Package": "edged",
        "Version": target.version,
        "Architecture": target.architecture,
        "Maintainer": _MAINTAINER,
        "Installed-Size": str(sum(-(-path.stat().st_size // 1024) for path in files)),
        "Depends": ", ".join(needs),
        "Recommends": "ca-certificates, python3-pip-whl",  # for fetching models, by address and by name
        "Suggests": "mosquitto",
        "Section": "net",
        "Priority": "optional",
        "Description": _DESCRIPTION,
    }
    (control / "control").write_text("".join(f"{key}: {value}\n" for key, value in fields.items()))
    (control / "conffiles").write_text("/etc/edged/edged.toml\n")
    sums = (f"{hashlib.md5(path.read_bytes()).hexdigest()}  {path.relative_to(stage)}\n" for path in files)
    (control / "md5sums").write_text("".join(sums))
    for part in (*_SCRIPTS, "templates"):
        shutil.copy(FILES / part, control / part)


def _settle(stage: Path, epoch: int) -> None:
    """Give every file the same rights and time, whatever umask and clock were."""
    programs = {stage / HOME / "bin/edged", stage / HOME / "bin/edgectl"}
    programs |= {stage / "DEBIAN" / script for script in _SCRIPTS}
    for path in [*stage.rglob("*"), stage]:
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path in programs else 0o644)
        os.utime(path, (epoch, epoch), follow_symlinks=False)


def _changelog(target: Target, epoch: int) -> str:
    when = subprocess.run(
        ["date", "--utc", "--rfc-email", f"--date=@{epoch}"], check=True, capture_output=True, text=True
    ).stdout.strip()
    return (
        f"edged ({target.version}) unstable; urgency=medium\n\n"
        f"  * Version {__version__}: see changelog.gz.\n\n -- {_MAINTAINER}  {when}\n"
    )


def _day(epoch: int) -> str:
    command = ["date", "--utc", "+%Y-%m-%d", f"--date=@{epoch}"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _completion(shell: str) -> bytes:
    command = [sys.executable, "-m", "edged.cli.main", "completion", shell]
    return subprocess.run(command, check=True, capture_output=True, cwd=ROOT).stdout


def _packed(text: str) -> bytes:
    return gzip.compress(text.encode(), 9, mtime=0)


def ours(directory: str) -> list[str]:
    """Return the files below a directory that are the project's, by their paths."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", directory]
    listed = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout
    return listed.rstrip("\0").split("\0")
