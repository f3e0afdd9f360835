# Creates a virtual environment and describes the interpreter, in one process.
#
# usage: environment.py DIR FINAL. Prints one `name value` per line. Every Python in any image, even 2.7,
# must be able to parse this file: podstrap refuses an old Python by its version, not by a SyntaxError.
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
    """Writes the activation scripts for the final path, quoted for each shell."""

    def setup_scripts(self, context):
        context.env_dir = final
        context.env_exe = os.path.join(final, os.path.relpath(context.env_exe, directory))
        context.prompt = context.prompt.replace(os.path.basename(directory), os.path.basename(final))
        super().setup_scripts(context)


def find_pip():
    """Finds the import path of pip, without importing it, and the version of pip."""
    for entry in site.getsitepackages():
        if PathFinder.find_spec("pip", [entry]):
            for info in sorted(glob.glob(os.path.join(glob.escape(entry), "pip-*.dist-info"))):
                return entry, os.path.basename(info)[len("pip-") : -len(".dist-info")]
            return entry, "of unknown version"
    # The wheels for ensurepip: in the standard library, or where Linux distributions keep them.
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
    """The path in an environment; for a free-threaded Python, lib/python3.13t/site-packages."""
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
# The processor that Python was built for, even if it is a 32-bit Python on a 64-bit kernel.
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
