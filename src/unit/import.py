# Does what Unit's Python module does to load an application (nxt_python_set_target), and prints why
# it fails. The job comes on stdin.
import importlib, json, os, sys, traceback

job = json.load(sys.stdin)
if job["site"]:
    import site
    site.addsitedir(job["site"])
if job["chdir"]:
    os.chdir(job["chdir"])
sys.path[:0] = job["path"]
sys.argv = ["python"]


def fail():
    kind, error, frames = sys.exc_info()
    # Without the frames of this script and of importlib.
    while frames and ("importlib" in frames.tb_frame.f_code.co_filename or frames.tb_frame.f_code.co_filename == "<string>"):
        frames = frames.tb_next
    traceback.print_exception(kind, error, frames)
    sys.exit(1)


for target in job["targets"]:
    module, name = target["module"], target["callable"]
    try:
        found = vars(importlib.import_module(module)).get(name)
    except BaseException:
        fail()
    if found is None:
        there = sorted(n for n, value in vars(sys.modules[module]).items() if callable(value) and not n.startswith("_"))
        sys.exit(f'module "{module}" has no "{name}"; what can be called in it: {", ".join(there[:20]) or "nothing"}')
    if target["factory"]:
        if not callable(found):
            sys.exit(f'"{name}" in module "{module}" is no factory: it cannot be called')
        try:
            found = found()
        except BaseException:
            fail()
    if not callable(found):
        sys.exit(f'"{name}" in module "{module}" cannot be called: it is of type {type(found).__name__}')
