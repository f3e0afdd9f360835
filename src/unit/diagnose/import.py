# Loads an application as Unit's Python module does (nxt_python_set_target), and prints the error.
# Reads the job from stdin. The exit codes are those of `Cause` in import.rs.
import importlib, json, os, sys, traceback

job = json.load(sys.stdin)
RAISED, NO_CALLABLE = 1, 91
RAISED_BY_NAME = {"ModuleNotFoundError": 92, "PermissionError": 93}


def stop(code, text):
    print(text, file=sys.stderr)
    sys.exit(code)


def fail():
    kind, error, frames = sys.exc_info()
    # Skip the frames of this script and of importlib.
    while frames and ("importlib" in frames.tb_frame.f_code.co_filename or frames.tb_frame.f_code.co_filename == "<string>"):
        frames = frames.tb_next
    traceback.print_exception(kind, error, frames)
    sys.exit(RAISED_BY_NAME.get(kind.__name__, RAISED))


if job["site"]:
    import site
    site.addsitedir(job["site"])
if job["chdir"]:
    try:
        os.chdir(job["chdir"])
    except OSError:
        fail()
sys.path[:0] = job["path"]
sys.argv = ["python"]

for target in job["targets"]:
    module, name = target["module"], target["callable"]
    try:
        found = vars(importlib.import_module(module)).get(name)
    except BaseException:
        fail()
    if found is None:
        there = sorted(n for n, value in vars(sys.modules[module]).items() if callable(value) and not n.startswith("_"))
        stop(NO_CALLABLE, f'module "{module}" has no "{name}"; its callables: {", ".join(there[:20]) or "none"}')
    if target["factory"]:
        if not callable(found):
            stop(RAISED, f'"{name}" in module "{module}" is not a factory: it is not callable')
        try:
            found = found()
        except BaseException:
            fail()
    if not callable(found):
        stop(RAISED, f'"{name}" in module "{module}" is not callable: it is of type {type(found).__name__}')
