# Compiles the files listed on standard input (separated by NUL, relative to BASE) to bytecode for the
# path FINAL. The bytecode is hash-based and never checked against its source (PEP 552), so it does not
# depend on time stamps.
#
# usage: compile.py BASE FINAL. Prints and skips files that do not compile, as pip skips them.
import _imp
import gc
import os
import sys
from _frozen_importlib_external import MAGIC_NUMBER, cache_from_source
from marshal import dumps

base, final = sys.argv[1:]
key = int.from_bytes(MAGIC_NUMBER, "little")
head = MAGIC_NUMBER + (0b01).to_bytes(4, "little")  # hash-based, check_source unset
os.umask(0o022)
gc.disable()  # syntax trees have too few cycles to be worth the search

for name in sys.stdin.buffer.read().decode(errors="surrogateescape").split("\0"):
    source = os.path.join(base, name)
    try:
        with open(source, "rb") as file:
            text = file.read()
        code = compile(text, os.path.join(final, name), "exec", dont_inherit=True, optimize=-1)
    except Exception as error:
        print(name, type(error).__name__, error, sep=": ")
        continue
    target = cache_from_source(source)
    # The target may already exist as a hard link into a cache: never write into it.
    beside = "%s.%d" % (target, os.getpid())
    try:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(beside, "wb") as file:
            file.write(head + _imp.source_hash(key, text) + dumps(code))
        os.replace(beside, target)
    except OSError as error:
        sys.exit("%s: %s" % (target, error.strerror))
