"""Checks that Kubernetes, helm and podstrap accept the files in k8s/.

    manifests.py PODSTRAP HELM KUBECTL

Validates each directory of manifests and each example of the chart against Kubernetes' schemas. Checks references
between objects and the restricted Pod Security Standard. Runs each podstrap command with the real binary, and
`podstrap check` on each configuration of Unit. At the end, every check must find an error that is put into a manifest.
"""

import copy
import json
import pathlib
import re
import signal
import subprocess
import sys
import tempfile

import kubernetes_validate
import yaml

PODSTRAP, HELM, KUBECTL = (str(pathlib.Path(arg).resolve()) for arg in sys.argv[1:4])
K8S = pathlib.Path(__file__).parent.parent / "k8s"
CHART = K8S / "chart"
EXAMPLES = sorted((CHART / "examples").glob("*.yaml"))
VERSION = "1.37"
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")
SHA = "0123456789abcdef0123456789abcdef01234567"
APP = {"repo": "https://git.example/app.git", "ref": SHA, "module": "index"}
# Created by hand, as the comments in the examples say.
FOREIGN = {"git-login", "package-index", "registry", "shop", "ssh", "pins"}
# In the article's Pod, Unit runs as root.
UNRESTRICTED = {"test-pod", "nginx-unit"}
# Values that no example uses.
VARIANTS = {
    "a configuration in the tree": APP | {"module": "", "config": "deploy/unit.json", "link": "app", "depth": 0},
    "a branch": APP | {"ref": "", "follow": True, "auth": ["ssh"], "storeClaim": "envs", "link": "app", "sidecar": True},
    "the same with a sidecar": APP | {"module": "", "config": "deploy/unit.json", "sidecar": True, "user": None},
    "all options": APP | {
        "storeClaim": "envs",
        "repo": "git@git.example:team/app.git",
        "args": ["--subdir=web", "-c", "/pins/constraints.txt", "gunicorn==23.0.0"],
        "auth": ["ssh"],
        "imageVolume": True,
        "env": [{"name": "A", "value": "1"}],
        "volumes": [{"name": "pins", "secret": {"secretName": "pins"}}],
        "volumeMounts": [{"name": "pins", "mountPath": "/pins", "readOnly": True}],
        "pod": {"imagePullSecrets": [{"name": "registry"}], "nodeSelector": {"disk": "ssd"}},
        "service": {"type": "LoadBalancer", "port": 8080},
        "maxUnavailable": "50%",
        "probe": "/health?deep=1",
    },
}
# Values that the chart refuses, and text of its error.
REFUSED = [
    ({}, "repo is not set"),
    (APP | {"module": ""}, "neither module nor config is set"),
    (APP | {"config": {"listeners": {}}}, "module and config are both set"),
    (APP | {"store": "oci://registry.example/envs", "storeClaim": "envs"}, "store and storeClaim are both set"),
    (APP | {"store": "oci://ci:s3cret@registry.example/envs"}, "store: the URL contains a login"),
    (APP | {"follow": True}, "follow: ref is a commit, which never changes"),
    (APP | {"store": "/envs"}, "at '/store': '/envs' does not match"),
    (APP | {"repo": "https://git:s3cret@git.example/app.git"}, "put it into a Secret"),
    (APP | {"replica": 3}, "additional properties 'replica' not allowed"),
    (APP | {"ref": 1234567890}, "at '/ref': got number, want string"),
    (APP | {"root": "app"}, "at '/root': 'app' does not match"),
    (APP | {"sizeLimit": "1G"}, "at '/sizeLimit': '1G' does not match"),
    (APP | {"user": 0}, "at '/user': minimum: got 0, want 1"),
    (APP | {"port": "8300"}, "at '/port': got string, want integer"),
    (APP | {"service": {"type": "Ingress"}}, "at '/service/type': value must be one of 'ClusterIP', 'NodePort'"),
    (APP | {"env": [{"name": "A", "value": 1}]}, "at '/env/0/value': got number, want string"),
    (APP | {"pod": {"volumes": []}}, "pod.volumes: the chart sets volumes itself"),
]


class Wrong(Exception):
    """An error in a manifest."""


def run(*command, stdin=None):
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise Wrong(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout


def load(text):
    return [document for document in yaml.safe_load_all(text) if document]


def by_name(documents):
    return {(d["kind"], d["metadata"]["name"]): d for d in documents}


def pods(documents):
    for document in documents:
        if document["kind"] == "Pod":
            yield document["metadata"], document["spec"]
        elif document["kind"] == "Deployment":
            yield document["spec"]["template"]["metadata"], document["spec"]["template"]["spec"]


def containers(spec):
    return [*spec.get("initContainers", []), *spec["containers"]]


# --- checks of one manifest ---


def schemas(documents):
    for document in documents:
        try:
            kubernetes_validate.validate(document, VERSION, strict=True)
        except (kubernetes_validate.ValidationError, kubernetes_validate.InvalidSchemaError) as error:
            raise Wrong(f"{document['kind']} {document['metadata']['name']}: {error}") from error


def references(documents):
    """Every volume, port, ConfigMap, Secret and label that an object refers to exists."""

    def there(what, name, known):
        if name not in known:
            raise Wrong(f"{what} {name} is not one of {sorted(known)}")

    named = by_name(documents)
    labels = []
    for meta, spec in pods(documents):
        labels.append(meta.get("labels", {}))
        volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
        mounted = set()
        for volume in volumes.values():
            if "configMap" in volume:
                there("ConfigMap", volume["configMap"]["name"], {n for kind, n in named if kind == "ConfigMap"})
            if "secret" in volume:
                there("Secret", volume["secret"]["secretName"], FOREIGN | {n for kind, n in named if kind == "Secret"})
        for container in containers(spec):
            ports = {port["name"] for port in container.get("ports", [])}
            for mount in container.get("volumeMounts", []):
                there("volume", mount["name"], volumes)
                mounted.add(mount["name"])
            for probe in PROBES:
                if "httpGet" in container.get(probe, {}):
                    there("port", container[probe]["httpGet"]["port"], ports)
            for variable in container.get("env", []):
                if "secretKeyRef" in variable.get("valueFrom", {}):
                    secret = variable["valueFrom"]["secretKeyRef"]
                    there("Secret", secret["name"], FOREIGN | {n for kind, n in named if kind == "Secret"})
        if mounted != set(volumes):
            raise Wrong(f"volumes that no container mounts: {set(volumes) - mounted}")
    for document in documents:
        selector = document.get("spec", {}).get("selector")
        selector = (selector or {}).get("matchLabels", selector)
        matching = [of for of in labels if selector and selector.items() <= of.items()]
        if selector and len(matching) != 1:
            raise Wrong(f"{document['kind']} {document['metadata']['name']}: {len(matching)} Pods have {selector}")
        if document["kind"] == "Service":
            [spec] = [spec for meta, spec in pods(documents) if meta.get("labels") in matching]
            ports = [port for container in containers(spec) for port in container.get("ports", [])]
            for port in document["spec"]["ports"]:
                there("port", port["targetPort"], {p["name"] for p in ports} | {p["containerPort"] for p in ports})


def restricted(documents):
    """Checks the rules of https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted that these
    manifests could break, and podstrap's own advice: read-only roots, no token, memory limits."""
    for meta, spec in pods(documents):
        if meta.get("name") in UNRESTRICTED:
            continue
        pod = spec["securityContext"]
        volumes = {kind for volume in spec.get("volumes", []) for kind in volume if kind != "name"}
        held = {
            "runAsNonRoot": pod.get("runAsNonRoot") is True and pod.get("runAsUser") != 0,
            "seccompProfile": pod.get("seccompProfile") == {"type": "RuntimeDefault"},
            "automountServiceAccountToken": spec.get("automountServiceAccountToken") is False,
            # Images since Kubernetes 1.33: kubernetes/kubernetes#130394.
            "volumes": volumes <= {"configMap", "emptyDir", "secret", "projected", "persistentVolumeClaim", "image"},
            "host": not any(spec.get(name) for name in ("hostNetwork", "hostPID", "hostIPC")),
        }
        for container in containers(spec):
            own = container.get("securityContext", {})
            held[f"{container['name']}: allowPrivilegeEscalation"] = own.get("allowPrivilegeEscalation") is False
            held[f"{container['name']}: capabilities"] = own.get("capabilities") == {"drop": ["ALL"]}
            held[f"{container['name']}: readOnlyRootFilesystem"] = own.get("readOnlyRootFilesystem") is True
            held[f"{container['name']}: memory"] = "memory" in container.get("resources", {}).get("limits", {})
        broken = [name for name, holds in held.items() if not holds]
        if broken:
            raise Wrong(f"not restricted: {broken}")


def configurations(documents):
    """Checks Unit's configurations with `podstrap check`; returns their number."""
    count = 0
    for document in documents:
        for name, text in document.get("data", {}).items() if document["kind"] == "ConfigMap" else ():
            with tempfile.TemporaryDirectory() as directory:
                path = pathlib.Path(directory, name)
                path.write_text(text)
                said = run(PODSTRAP, "check", path, "--format", "json")
            if json.loads(said):
                raise Wrong(f"{document['metadata']['name']}: {name}: {said}")
            count += 1
    return count


def commands(documents):
    """Runs podstrap's commands with the real binary; returns their number. They run as far as they can without a
    cluster: init fails at the missing volume, and so does what follows or shows a branch; apply and status fail at the missing
    socket; a sidecar waits for it."""
    count = 0
    for _, spec in pods(documents):
        for container in containers(spec):
            own = container.get("command", [])
            image = container["image"].split(":")[0].split("/")[-1]
            entrypoint = own or (["podstrap"] if image == "podstrap" else ["?"])
            found = [entrypoint + container.get("args", [])]
            handlers = [*container.get("lifecycle", {}).values(), *(container.get(name, {}) for name in PROBES)]
            found += [handler["exec"]["command"] for handler in handlers if "exec" in handler]
            for command in found:
                if pathlib.PurePath(command[0]).name == "podstrap":
                    tried(documents, spec, container, command[1:])
                    count += 1
    return count


def tried(documents, spec, container, args):
    with tempfile.TemporaryDirectory() as directory:
        place = pathlib.Path(directory)

        def elsewhere(arg):
            name, _, value = arg.partition("=")
            if name == "--root":
                mount(container, value)
                return f"--root={place}/missing"
            if name == "--control-socket":
                mount(container, value)
                return f"--control-socket={place}/missing.sock"
            if name == "--auth":
                mount(container, value)
            if name == "--webhook-secret":
                mount(container, value)
            if name == "--config" and value.startswith("/"):
                (place / "config.json").write_text(mounted(documents, spec, container, value))
                return f"--config={place}/config.json"
            return arg

        subcommand, args = args[0], [elsewhere(arg) for arg in args]
        if subcommand == "copy-self":
            mount(container, args[1])
            args[1] = f"{place}{args[1]}"
        literal = {variable["name"]: variable["value"] for variable in container.get("env", []) if "value" in variable}
        # Never reach a Unit of this machine.
        env = literal | {"PATH": "/usr/bin:/bin", "PODSTRAP_CONTROL_SOCKET": f"{place}/missing.sock"}
        env |= {"PODSTRAP_TIMEOUT": "1s"} if subcommand == "apply" else {}
        process = subprocess.Popen([PODSTRAP, *args], env=env, stderr=subprocess.PIPE, text=True)
        try:
            _, said = process.communicate(timeout=1 if subcommand == "sidecar" else 60)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)
            _, said = process.communicate(timeout=60)
        needs_root = subcommand in ("sidecar", "status") and any(arg.startswith("--root") for arg in args)
        code, words = {
            "copy-self": (0, ""),
            "init": (5, "/missing does not exist"),
            "apply": (6, "/missing.sock"),
            "status": (6, "/missing.sock"),
            "sidecar": (0, "ended by SIGTERM"),
        }.get(subcommand, (0, "a subcommand"))
        if needs_root:
            code, words = 5, "/missing does not exist"
        if process.returncode != code or words not in said:
            raise Wrong(f"podstrap {args}: {process.returncode} instead of {code}: {said}")
        if subcommand == "copy-self" and not pathlib.Path(args[1]).is_file():
            raise Wrong(f"podstrap {args} copied nothing")


def mount(container, path):
    """Returns the mount that contains this path of a container."""
    mounts = [m for m in container.get("volumeMounts", []) if f"{path}/".startswith(f"{m['mountPath']}/")]
    if not mounts:
        raise Wrong(f"{container['name']}: {path} is not on a volume")
    return max(mounts, key=lambda mount: len(mount["mountPath"]))


def mounted(documents, spec, container, path):
    """Returns the file's contents, or the ConfigMap's only file if the path is its directory."""
    at = mount(container, path)
    [volume] = [volume for volume in spec["volumes"] if volume["name"] == at["name"]]
    if "configMap" not in volume:
        return "{}"  # a file of the repository
    files = by_name(documents)["ConfigMap", volume["configMap"]["name"]]["data"]
    name = path.removeprefix(at["mountPath"]).strip("/")
    if name and name not in files:
        raise Wrong(f"{path}: the ConfigMap has {sorted(files)}")
    return files[name] if name else next(iter(files.values()))


def all_of(documents):
    schemas(documents)
    references(documents)
    restricted(documents)
    checked, tried = configurations(documents), commands(documents)
    return f"{len(documents)} objects, {checked} configurations of Unit, {tried} commands of podstrap"


# --- sources of the manifests ---


def directory(path):
    """Returns the objects of `kubectl apply -f`; `-k` must give the same."""
    plain = [document for file in sorted(path.glob("*.yaml")) for document in load(file.read_text())]
    if by_name(load(run(KUBECTL, "kustomize", path))) != by_name(plain):
        raise Wrong("kubectl apply -f and -k would apply different things")
    return plain


def chart(values):
    return load(run(HELM, "template", "hello", CHART, "--values", "-", stdin=json.dumps(values)))


def linted(values):
    run(HELM, "lint", "--strict", CHART, "--values", "-", stdin=json.dumps(values))
    return chart(values)


def notes(values):
    said = run(HELM, "install", "hello", CHART, "--dry-run=client", "--values", "-", stdin=json.dumps(values))
    return said.split("\nNOTES:\n", 1)[1]


# --- checks of the chart ---


def values_are_explained():
    """Every value has a comment above it, and the schema has exactly these values."""
    lines = (CHART / "values.yaml").read_text().splitlines()
    schema = json.loads((CHART / "values.schema.json").read_text())["properties"]
    defaults = yaml.safe_load("\n".join(lines))
    if set(defaults) != set(schema) - {"global"} or set(defaults["service"]) != set(schema["service"]["properties"]):
        raise Wrong("values.yaml and values.schema.json have different members")
    count = 0
    for above, line in zip(["", *lines], lines):
        if re.match(r" *[a-zA-Z]+:", line) and not re.match(r"service:|  (requests|limits):", line):
            count += 1
            if not above.lstrip().startswith("#"):
                raise Wrong(f"values.yaml: no comment above {line}")
    return f"{count} values"


def chart_behaves():
    def deployment(values):
        return by_name(chart(values))["Deployment", "hello"]

    def checksum(values):
        return deployment(values)["spec"]["template"]["metadata"].get("annotations", {}).get("checksum/config")

    config = {"listeners": {"*:8300": {"pass": "routes"}}, "routes": [{"action": {"return": 200}}]}
    own = APP | {"module": ""}
    other = copy.deepcopy(config) | {"routes": [{"action": {"return": 204}}]}
    first, second = checksum(own | {"config": config}), checksum(own | {"config": other})
    expect("another configuration has another checksum", first and second and first != second)
    expect("a copy, the same checksum", checksum(own | {"config": config}) == checksum(own | {"config": dict(config)}))
    expect("no checksum with a sidecar", checksum(own | {"config": config, "sidecar": True}) is None)
    expect("the checksum does not depend on other values", checksum(APP) == checksum(APP | {"replicas": 5}))
    expect("no warning if it follows", "WARNING" not in notes(APP | {"ref": "main", "follow": True}))
    expect("no warning for a commit", "WARNING" not in notes(APP))
    expect("a warning for a branch", '"main" is no full commit' in notes(APP | {"ref": "main"}))
    expect("a warning without a reference", "WARNING: the source is not pinned." in notes(APP | {"ref": ""}))
    archive = APP | {"ref": "", "repo": "https://files.example/app.tar.gz?token=abc"}
    expect("a secret in a query is not shown", "abc" not in notes(archive))
    pinned = APP | {"ref": "", "repo": "https://files.example/app.tar.gz#sha256=" + "0" * 64}
    expect("no warning for a download with a checksum", "WARNING" not in notes(pinned))
    text = '{\n  // a comment\n  "listeners": { "*:8300": { "pass": "routes" }, },\n  "routes": [],\n}\n'
    data = by_name(chart(own | {"config": text}))["ConfigMap", "hello"]["data"]["unit.conf.json"]
    expect("a configuration given as text stays unchanged", data.strip() == text.strip())


def expect(what, holds):
    if not holds:
        raise Wrong(f"failed: {what}")


def chart_refuses():
    for values, words in REFUSED:
        try:
            chart(values)
        except Wrong as error:
            expect(f"{words!r} in {error}", words in str(error))
            expect(f"no secret in {error}", "s3cret" not in str(error))
        else:
            raise Wrong(f"the chart accepts {values}")


def wrong_is_noticed():
    """Every check reports an error that is put into a manifest."""

    def change(path, value):
        changed = copy.deepcopy(good)
        *parents, last = path
        at = by_name(changed)
        for part in parents:
            at = at[part]
        at[last] = value
        return changed

    good = directory(K8S / "recommended")
    pod = (("Deployment", "hello"), "spec", "template", "spec")
    init, unit = (*pod, "initContainers", 0), (*pod, "containers", 0)
    hook = (*unit, "lifecycle", "postStart", "exec", "command")
    text = '{"listeners": {"*:8300": {"pass": "applications/none"}}}'
    for check, path, value in [
        (schemas, (*pod, "enableServiceLink"), False),
        (schemas, (*unit, "readinessProbe", "httpGet", "port"), None),
        (references, (*unit, "volumeMounts", 0, "name"), "ap"),
        (references, (*unit, "readinessProbe", "httpGet", "port"), "web"),
        (references, (("Service", "hello"), "spec", "selector", "app"), "hallo"),
        (references, (("PodDisruptionBudget", "hello"), "spec", "selector", "matchLabels", "app"), "hallo"),
        (references, (*pod, "volumes", 5, "secret", "secretName"), "git"),
        (references, (*pod, "volumes", 4, "configMap", "name"), "hallo"),
        (references, (*init, "env", 0), {"name": "A", "valueFrom": {"secretKeyRef": {"name": "git", "key": "a"}}}),
        (restricted, (*init, "securityContext"), {}),
        (restricted, (*pod, "securityContext", "runAsUser"), 0),
        (configurations, (("ConfigMap", "hello"), "data", "unit.conf.json"), text),
        (commands, (*init, "command", 3), "--branch=main"),
        (commands, (*init, "command", 2), "--repo=x:/"),
        (commands, (*init, "command", 6), "--root=/elsewhere"),
        (commands, (*init, "command", 4), "--auth=/secret/git"),
        (commands, (*hook, 4), "--probe=127.0.0.1:8300"),
        (commands, (*hook, 2), "--config=/config/unit.json"),
        (commands, (*init, "command", 1), "inits"),
    ]:
        check(good)
        try:
            check(change(path, value))
        except Wrong:
            continue
        raise Wrong(f"{check.__name__} accepts {value!r} at {path}")


def main():
    failed = 0

    def step(name, what):
        nonlocal failed
        try:
            said = what()
        except Wrong as error:
            failed += 1
            print(f"FAILED  {name}: {error}", flush=True)
        else:
            print(f"ok      {name}{f': {said}' if said else ''}", flush=True)

    for path in sorted({file.parent for file in K8S.glob("*/*.yaml")} - {CHART}):
        step(path.name, lambda: all_of(directory(path)))
    for path in EXAMPLES:
        step(f"chart: {path.name}", lambda: all_of(linted(yaml.safe_load(path.read_text()))))
    for name, values in VARIANTS.items():
        step(f"chart: {name}", lambda: all_of(linted(values)))
    step("chart: every value is documented", values_are_explained)
    step("chart: checksums and warnings", chart_behaves)
    step(f"chart: {len(REFUSED)} invalid values are refused with a clear error", chart_refuses)
    step("checks find errors", wrong_is_noticed)
    sys.exit(failed and f"{failed} of the above failed")


main()
