# Runs a pip that is not installed in this environment: only the package `pip` is looked for at the
# given place (a site-packages directory or a wheel), so that pip sees nothing else of it.
#
# usage: pip.py PLACE build|only-binary ARGUMENTS…
import json
import logging
import os
import runpy
import sys
from importlib.machinery import PathFinder

place, mode = sys.argv[1:3]


class OnlyPip:
    @staticmethod
    def find_spec(name, path=None, target=None):
        return PathFinder.find_spec(name, [place]) if name == "pip" else None


sys.meta_path.insert(0, OnlyPip)
try:
    from pip._vendor.urllib3.connectionpool import HTTPConnectionPool
    from pip._vendor.urllib3.response import HTTPResponse
    from pip._vendor.urllib3.util.retry import Retry
except ImportError:
    pass
else:
    # It would sleep for as long as a server says, past every deadline; podstrap waits better.
    Retry.get_retry_after = lambda self, response: None

    # It would take an index page that broke off for all there is (until urllib3 2).
    class Whole(HTTPResponse):
        def __init__(self, *args, **kwargs):
            kwargs.setdefault("enforce_content_length", True)
            super().__init__(*args, **kwargs)

    HTTPConnectionPool.ResponseCls = Whole


# For another Python or platform pip looks for other wheels, but asks the markers of this one, and it would
# install such wheels into a --target only. The environment is made for them.
target = json.loads(os.environ.pop("PODSTRAP_MARKERS", "null"))
if target:
    from pip._internal.cli import cmdoptions
    from pip._vendor.packaging import markers

    here = markers.default_environment
    markers.default_environment = lambda: {**here(), **target}
    check = cmdoptions.check_dist_restriction
    cmdoptions.check_dist_restriction = lambda options, check_target=False: check(options)

try:
    from pip._internal import build_env

    run = build_env.call_subprocess
except (ImportError, AttributeError):
    pass
else:
    # The pip that installs what a build needs gets its indexes by variables: arguments are for everybody
    # to read, and pip.conf or a requirements file may have passwords in them.
    def unseen(args, *more, extra_environ=None, **named):
        indexes = {"-i": [], "--extra-index-url": []}
        rest = []
        words = iter(args)
        for word in words:
            if word in indexes:
                indexes[word].append(next(words))
            else:
                rest.append(word)
        names = {"-i": "PIP_INDEX_URL", "--extra-index-url": "PIP_EXTRA_INDEX_URL"}
        given = {names[flag]: " ".join(urls) for flag, urls in indexes.items() if urls}
        return run(rest, *more, extra_environ={**(extra_environ or {}), **given}, **named)

    build_env.call_subprocess = unseen


try:
    from pip._internal.distributions.sdist import SourceDistribution
    from pip._internal.exceptions import InstallationError

    prepare = SourceDistribution.prepare_distribution_metadata
except (ImportError, AttributeError):
    # Of this pip the promise cannot be kept.
    if mode == "only-binary":
        raise
else:
    # Whose build it was that failed: pip says it of the last step only.
    def named(self, *args, **kwargs):
        try:
            return prepare(self, *args, **kwargs)
        except InstallationError as error:
            if self.req.name and "Subprocess" in type(error).__name__:
                print("Failed to build `%s`" % self.req.name, file=sys.stderr)
            raise

    SourceDistribution.prepare_distribution_metadata = named


if mode == "only-binary":
    # pip's own --only-binary is about what an index has; a directory, a repository or the URL of an archive
    # is built all the same. Here, before anything of it is run, or fetched for that.
    from pip._internal.req.req_install import InstallRequirement

    def refuse(self, *args, **kwargs):
        requirement = getattr(self, "req", None) if isinstance(self, SourceDistribution) else self
        raise InstallationError("only-binary: %s would have to be built" % requirement)

    SourceDistribution.prepare_distribution_metadata = refuse
    InstallRequirement.prepare_metadata = refuse


class Unsaid(logging.Handler):
    """An index page that pip could not get: it keeps that to itself, and then finds no version."""

    def emit(self, record):
        text = record.getMessage()
        if text.startswith("Could not fetch URL") and "404 Client Error" not in text:
            print(text, file=sys.stderr)


pages = logging.getLogger("pip._internal.index.collector")
pages.setLevel(logging.DEBUG)
pages.addHandler(Unsaid())
sys.argv[:3] = ["pip"]
runpy.run_module("pip", run_name="__main__", alter_sys=True)
