# Finds the modules that a distribution can work without, from its sources alone: runs none of its code.
#
# usage: guard.py < JSON, a list of {"modules": [dotted names], "files": {dotted name: path}}, one for each
# distribution; the name of a package is "pkg.__init__". Prints each module whose imports are all in a
# `try` that catches ImportError and continues.
import ast
import json
import sys

CATCHES = {"ImportError", "ModuleNotFoundError", "Exception", "BaseException"}


def goes_on(handler):
    """Whether a handler catches a failed import and does not raise an exception itself."""
    if handler.type is None:
        caught = True
    else:
        kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
        caught = any(isinstance(kind, ast.Name) and kind.id in CATCHES for kind in kinds)
    return caught and not any(isinstance(node, ast.Raise) for node in ast.walk(handler))


def imports(tree, package):
    """Yields (dotted name, whether it may fail) for every import; x and x.y for `from x import y`."""
    todo = [(tree, False)]
    while todo:
        node, guarded = todo.pop()
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, guarded
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join(base + ([node.module] if node.module else []))
            yield base, guarded
            for alias in node.names:
                yield base + "." + alias.name, guarded
        elif isinstance(node, ast.Try):
            inside = guarded or any(goes_on(handler) for handler in node.handlers)
            todo += [(child, inside) for child in node.body]
            todo += [(child, guarded) for child in node.handlers + node.orelse + node.finalbody]
            continue
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            todo += [(child, guarded) for child in node.orelse]
            continue
        todo += [(child, guarded) for child in ast.iter_child_nodes(node)]


for dist in json.load(sys.stdin):
    seen = {}
    for name, path in dist["files"].items():
        package = name.split(".")[:-1]
        try:
            with open(path, "rb") as file:
                tree = ast.parse(file.read())
        except (OSError, SyntaxError, ValueError, RecursionError):
            continue
        for imported, guarded in imports(tree, package):
            if imported in dist["modules"]:
                seen[imported] = seen.get(imported, True) and guarded
    for module, guarded in seen.items():
        if guarded:
            print(module)
