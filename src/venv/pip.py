# Runs a pip that is not installed in this environment. Imports only the package `pip` from PLACE (a
# site-packages directory or a wheel), so that pip sees nothing else there.
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
    # pip would sleep for as long as a server asks, past the deadline. podstrap retries instead.
    Retry.get_retry_after = lambda self, response: None

    # Before urllib3 2, pip would take a truncated index page for a complete one.
    class Whole(HTTPResponse):
        def __init__(self, *args, **kwargs):
            kwargs.setdefault("enforce_content_length", True)
            super().__init__(*args, **kwargs)

    HTTPConnectionPool.ResponseCls = Whole


# Before 23.2, pip rejects a file if the metadata that the index sends for it spells the name in another way than the
# requirement, and fails for a JSON page with that attribute (PEP 714). Without the attribute, pip reads the wheel itself.
try:
    from pip import __version__
    from pip._internal.models.link import Link
except ImportError:
    pass
else:
    if [int(part) for part in __version__.split(".")[:2]] < [23, 2]:
        Link.metadata_link = lambda self: None


# For another Python or platform, pip selects other wheels, but evaluates markers for this one, and installs
# such wheels only into a --target. Replace both: the environment is for that Python.
target = json.loads(os.environ.pop("PODSTRAP_MARKERS", "null"))
if target:
    from pip._internal.cli import cmdoptions
    from pip._vendor.packaging import markers

    here = markers.default_environment
    markers.default_environment = lambda: {**here(), **target}
    try:
        from pip._internal.resolution.resolvelib.candidates import RequiresPythonCandidate
    except ImportError:
        pass
    else:
        # `pip install` compares Requires-Python of a package with this Python.
        compare = RequiresPythonCandidate.__init__
        number = tuple(int(part) for part in target["python_full_version"].split(".")[:3] if part.isdigit())
        RequiresPythonCandidate.__init__ = lambda self, version: compare(self, number)

    check = cmdoptions.check_dist_restriction
    cmdoptions.check_dist_restriction = lambda options, check_target=False: check(options)

try:
    from pip._internal import build_env

    run = build_env.call_subprocess
except (ImportError, AttributeError):
    pass
else:
    # Pass URLs in variables to the pip that installs build requirements. All users can read arguments, and the
    # URLs may contain passwords.
    def unseen(args, *more, extra_environ=None, **named):
        indexes = {"-i": [], "--extra-index-url": [], "--find-links": []}
        rest = []
        words = iter(args)
        for word in words:
            value = next(words) if word in indexes else ""
            if word in indexes and " " not in value:
                indexes[word].append(value)
            elif word in indexes:
                rest += [word, value]
            else:
                rest.append(word)
        names = {"-i": "PIP_INDEX_URL", "--extra-index-url": "PIP_EXTRA_INDEX_URL", "--find-links": "PIP_FIND_LINKS"}
        given = {names[flag]: " ".join(urls) for flag, urls in indexes.items() if urls}
        return run(rest, *more, extra_environ={**(extra_environ or {}), **given}, **named)

    build_env.call_subprocess = unseen


try:
    from pip._internal.distributions.sdist import SourceDistribution
    from pip._internal.exceptions import InstallationError

    prepare = SourceDistribution.prepare_distribution_metadata
except (ImportError, AttributeError):
    # With this pip, podstrap cannot guarantee --only-binary.
    if mode == "only-binary":
        raise
else:
    # Print which package failed to build. pip itself does so only for the last step of a build.
    def named(self, *args, **kwargs):
        try:
            return prepare(self, *args, **kwargs)
        except InstallationError as error:
            if self.req.name and "Subprocess" in type(error).__name__:
                print("Failed to build `%s`" % self.req.name, file=sys.stderr)
            raise

    SourceDistribution.prepare_distribution_metadata = named


if mode == "only-binary":
    # pip's own --only-binary covers only packages from an index: pip still builds a directory, a repository
    # or the URL of an archive. Refuse that here, before pip runs its code or fetches its build requirements.
    from pip._internal.req.req_install import InstallRequirement

    def refuse(self, *args, **kwargs):
        requirement = getattr(self, "req", None) if isinstance(self, SourceDistribution) else self
        raise InstallationError("only-binary: %s would have to be built" % requirement)

    SourceDistribution.prepare_distribution_metadata = refuse
    InstallRequirement.prepare_metadata = refuse


class Unsaid(logging.Handler):
    """Prints index pages that pip could not fetch. pip hides that and then reports that no version exists."""

    def emit(self, record):
        text = record.getMessage()
        if text.startswith("Could not fetch URL") and "404 Client Error" not in text:
            print(text, file=sys.stderr)


pages = logging.getLogger("pip._internal.index.collector")
pages.setLevel(logging.DEBUG)
pages.addHandler(Unsaid())
sys.argv[:3] = ["pip"]
runpy.run_module("pip", run_name="__main__", alter_sys=True)
