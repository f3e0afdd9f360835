# Runs a pip that is not installed in this environment: only the package `pip` is looked for at the
# given place (a site-packages directory or a wheel), so that pip sees nothing else of it.
#
# usage: pip.py PLACE ARGUMENTS…
import runpy
import sys
from importlib.machinery import PathFinder

place = sys.argv[1]


class OnlyPip:
    @staticmethod
    def find_spec(name, path=None, target=None):
        return PathFinder.find_spec(name, [place]) if name == "pip" else None


sys.meta_path.insert(0, OnlyPip)
try:
    from pip._vendor.urllib3.util.retry import Retry

    # It would sleep for as long as a server says, past every deadline; podstrap waits better.
    Retry.get_retry_after = lambda self, response: None
except ImportError:
    pass
sys.argv[:2] = ["pip"]
runpy.run_module("pip", run_name="__main__", alter_sys=True)
