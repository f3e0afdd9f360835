# Compiles the files listed on standard input (separated by NUL, relative to BASE) to bytecode for the
# path FINAL. The bytecode is hash-based and never checked against its source (PEP 552), so it does not
# depend on time stamps.
#
# usage: compile.py BASE FINAL [EARLIER]. Prints and skips files that do not compile, as pip skips them. Takes the
# bytecode of a source with the same contents from the environment EARLIER, which was made for the same path.
import _imp
import gc
import os
import sys
from _frozen_importlib_external import MAGIC_NUMBER, cache_from_source
from marshal import dumps

base, final = sys.argv[1:3]
earlier = sys.argv[3] if sys.argv[3:] else None
key = int.from_bytes(MAGIC_NUMBER, "little")
head = MAGIC_NUMBER + (0b01).to_bytes(4, "little")  # hash-based, check_source unset
os.umask(0o022)


def of_earlier(target, start):
    """The bytecode at the same path in the earlier environment, if it starts with `start`."""
    try:
        with open(os.path.join(earlier, os.path.relpath(target, base)), "rb") as file:
            bytecode = file.read()
    except OSError:
        return None
    return bytecode if bytecode.startswith(start) and len(bytecode) > len(start) else None


taken = 0
gc.disable()  # syntax trees have too few cycles to be worth the search

for name in sys.stdin.buffer.read().decode(errors="surrogateescape").split("\0"):
    source = os.path.join(base, name)
    try:
        with open(source, "rb") as file:
            text = file.read()
        target = cache_from_source(source)
        start = head + _imp.source_hash(key, text)
        bytecode = of_earlier(target, start) if earlier else None
        taken += bytecode is not None
        if bytecode is None:
            code = compile(text, os.path.join(final, name), "exec", dont_inherit=True, optimize=-1)
            bytecode = start + dumps(code)
    except Exception as error:
        print(name, type(error).__name__, error, sep=": ")
        continue
    # The target may already exist as a hard link into a cache: never write into it.
    beside = "%s.%d" % (target, os.getpid())
    try:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(beside, "wb") as file:
            file.write(bytecode)
        os.replace(beside, target)
    except OSError as error:
        sys.exit("%s: %s" % (target, error.strerror))
print("taken %d" % taken)
