# Compiles the files named on standard input (separated by NUL, relative to BASE) to bytecode that
# says it belongs to FINAL: hash-based and never checked against its source (PEP 552), so that it
# depends on no time stamp.
#
# usage: compile.py BASE FINAL. Prints what does not compile, as pip leaves it aside.
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
gc.disable()  # syntax trees hold no cycles worth the search

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
    # A copy may be there already, hardlinked from a cache: never write into it.
    beside = "%s.%d" % (target, os.getpid())
    try:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(beside, "wb") as file:
            file.write(head + _imp.source_hash(key, text) + dumps(code))
        os.replace(beside, target)
    except OSError as error:
        sys.exit("%s: %s" % (target, error.strerror))
