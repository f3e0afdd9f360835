# Creates a virtual environment and says what the interpreter is, in one process.
#
# usage: environment.py DIR FINAL. Prints one `name value` per line. Every Python ever seen in an
# image, 2.7 included, must be able to read this far: it is refused by its version, not by a
# SyntaxError.
import sys

sys.path = [entry for entry in sys.path if entry]  # not the working directory
print("version %d.%d.%d" % sys.version_info[:3])
if sys.version_info < (3, 8):
    sys.exit(0)

import glob
import os
from importlib.machinery import PathFinder

try:
    import venv
except ImportError:
    print("missing venv")
    sys.exit(0)
import site
import sysconfig

directory, final = sys.argv[1:]


class Builder(venv.EnvBuilder):
    """Writes the activation scripts for the final path, quoted as each shell wants it."""

    def setup_scripts(self, context):
        context.env_dir = final
        context.env_exe = os.path.join(final, os.path.relpath(context.env_exe, directory))
        context.prompt = context.prompt.replace(os.path.basename(directory), os.path.basename(final))
        super().setup_scripts(context)


def find_pip():
    """The import path that gives pip without importing it, and pip's version."""
    for entry in site.getsitepackages():
        if PathFinder.find_spec("pip", [entry]):
            for info in sorted(glob.glob(os.path.join(glob.escape(entry), "pip-*.dist-info"))):
                return entry, os.path.basename(info)[len("pip-") : -len(".dist-info")]
            return entry, "of unknown version"
    # What ensurepip would install from: in the standard library, or where distributions keep it.
    bundles = [
        os.path.join(os.path.dirname(venv.__path__[0]), "ensurepip", "_bundled"),
        sysconfig.get_config_var("WHEEL_PKG_DIR") or "",
        "/usr/share/python-wheels",
    ]
    for bundle in bundles:
        for wheel in sorted(glob.glob(os.path.join(glob.escape(bundle), "pip-*.whl"))):
            return wheel, os.path.basename(wheel).split("-")[1]
    return None


def site_packages():
    """As a path in an environment: a free-threaded Python has its own, lib/python3.13t/site-packages."""
    scheme = "venv" if "venv" in sysconfig.get_scheme_names() else "posix_prefix"
    bases = {"base": "", "platbase": "", "installed_base": "", "installed_platbase": ""}
    return sysconfig.get_path("purelib", scheme, bases).strip("/")


system = os.uname()
print("soabi %s" % (sysconfig.get_config_var("SOABI") or ""))
print("site %s" % site_packages())
print("free_threaded %d" % bool(sysconfig.get_config_var("Py_GIL_DISABLED")))
print("full_version %s" % sys.version.split()[0].rstrip("+"))
print("implementation %s" % sys.implementation.name)
print("implementation_version %d.%d.%d" % sys.implementation.version[:3])
# The processor that it was built for; a 32-bit Python on a 64-bit kernel says so here.
print("machine %s" % sysconfig.get_platform().partition("-")[2].replace("-", "_"))
print("release %s" % system.release)
print("kernel %s" % system.version)
pip = find_pip()
if pip:
    print("pip %s" % pip[0])
    print("pip_version %s" % pip[1])
os.umask(0o022)
Builder(symlinks=True, with_pip=False).create(directory)
print("created yes")
