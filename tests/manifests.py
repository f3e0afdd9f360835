"""Checks that Kubernetes, helm and podstrap accept the files in k8s/.

    manifests.py PODSTRAP HELM KUBECTL

Validates each directory of manifests and each example of the chart against Kubernetes' schemas. Checks references
between objects and the restricted Pod Security Standard. Runs each podstrap command with the real binary, and
`podstrap check` on each configuration of Unit. Renders each value of the chart and looks where it arrives. At the end, every
check must find an error that is put into a manifest.
"""

import copy
import json
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile

import jsonschema
import kubernetes_validate
import yaml

PODSTRAP, HELM, KUBECTL = (str(pathlib.Path(arg).resolve()) for arg in sys.argv[1:4])
K8S = pathlib.Path(__file__).parent.parent / "k8s"
CHART = K8S / "chart"
EXAMPLES = sorted((CHART / "examples").glob("*.yaml"))
VERSION = "1.37"
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")
OPENSHIFT = {"runAsUser": None, "runAsGroup": None, "fsGroup": None}
SHA = "0123456789abcdef0123456789abcdef01234567"
APP = {"repo": "https://git.example/app.git", "ref": SHA, "module": "index"}
# Created by hand, as the comments in the examples say.
FOREIGN = {"git-login", "package-index", "registry", "shop", "ssh", "pins", "webhook"}
# In the article's Pod, Unit runs as root.
UNRESTRICTED = {"test-pod", "nginx-unit"}
# Values that no example uses.
VARIANTS = {
    "a configuration in the tree": APP | {"module": "", "config": "deploy/unit.json", "link": "app", "depth": 0},
    "a branch": APP | {"ref": "", "follow": True, "auth": ["ssh"], "storeClaim": "envs", "link": "app", "sidecar": True},
    "a branch with all options": APP | {
        "ref": "main",
        "follow": True,
        "auth": ["webhook"],
        "webhook": {"secretName": "webhook", "secretKey": "token"},
        "metrics": {"serviceMonitor": {"enabled": True, "labels": {"release": "prom"}, "interval": "15s", "scrapeTimeout": "5s"}},
        "ingress": {"enabled": True, "hosts": [{"host": "app.example"}]},
        "nameOverride": "news",
    },
    "the same with a sidecar": APP
    | {"module": "", "config": "deploy/unit.json", "sidecar": True, "podSecurityContext": OPENSHIFT},
    "all options": APP | {
        "storeClaim": "envs",
        "repo": "git@git.example:team/app.git",
        "args": ["--subdir=web", "-c", "/pins/constraints.txt", "gunicorn==23.0.0"],
        "auth": ["ssh"],
        "imageVolume": True,
        "extraEnv": [{"name": "A", "value": "1"}],
        "envFrom": [{"prefix": "SHOP_", "secretRef": {"name": "shop"}}],
        "extraVolumes": [{"name": "pins", "secret": {"secretName": "pins"}}],
        "extraVolumeMounts": [{"name": "pins", "mountPath": "/pins", "readOnly": True}],
        "imagePullSecrets": [{"name": "registry"}],
        "nodeSelector": {"disk": "ssd"},
        "extraPodSpec": {"priorityClassName": "high"},
        "service": {"type": "LoadBalancer", "port": 8080},
        "serviceAccount": {"create": True},
        "autoscaling": {"enabled": True, "targetMemoryUtilizationPercentage": 70},
        "ingress": {"enabled": True, "hosts": [{"host": "app.example"}]},
        "httpRoute": {"enabled": True, "parentRefs": [{"name": "gateway"}]},
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
    (APP | {"port": "8300"}, "at '/port': got string, want integer"),
    (APP | {"service": {"type": "Ingress"}}, "at '/service/type': value must be one of 'ClusterIP', 'NodePort'"),
    (APP | {"extraEnv": [{"name": "A", "value": 1}]}, "at '/extraEnv/0/value': got number, want string"),
    (APP | {"extraPodSpec": {"volumes": []}}, "extraPodSpec.volumes: the chart sets volumes itself"),
    (APP | {"podAnnotations": {"prometheus.io/scrape": True}}, "at '/podAnnotations/prometheus.io~1scrape': got boolean"),
    (APP | {"image": {"repository": "unit:1.34.2"}}, "at '/image/repository': 'unit:1.34.2' does not match"),
    (APP | {"image": {"tag": 3.13}}, "at '/image/tag': got number, want string"),
    (APP | {"image": {"tag": ""}}, "the image ghcr.io/freeunitorg/freeunit has no tag and no digest"),
    (APP | {"fullnameOverride": "1st"}, "at '/fullnameOverride': '1st' does not match"),
    (APP | {"ingress": {"enabled": True}}, "ingress.hosts is empty"),
    (APP | {"httpRoute": {"enabled": True}}, "httpRoute.parentRefs is empty"),
    (APP | {"webhook": {"secretName": "webhook"}}, "webhook.secretName is set, but only a sidecar that follows"),
    (APP | {"metrics": {"serviceMonitor": {"enabled": True}}}, "metrics.serviceMonitor.enabled is true, but only a sidecar"),
    # Old names.
    (APP | {"image": "unit:1.34.2"}, "image is one text: set image.repository and image.tag (or image.digest) instead"),
    (APP | {"podstrapImage": "podstrap:uv"}, "podstrapImage is one text: set podstrapImage.repository and podstrapImage.tag"),
    (APP | {"replicas": 3}, "replicas is now replicaCount"),
    (APP | {"env": []}, "env is now extraEnv"),
    (APP | {"volumes": []}, "volumes is now extraVolumes"),
    (APP | {"volumeMounts": []}, "volumeMounts is now extraVolumeMounts"),
    (APP | {"user": 1000}, "user is now podSecurityContext.runAsUser, runAsGroup and fsGroup"),
    (APP | {"pod": {"nodeSelector": {}}}, "pod is now imagePullSecrets, nodeSelector, tolerations, affinity, and extraPodSpec"),
]
# What sidecar --repo refuses, the chart refuses first, and nothing else.
NO_BRANCH = [
    ("https://files.example/app.tar.gz", []),
    ("https://files.example/app.TGZ?token=abc", []),
    ("https://files.example/app.zip", []),
    ("https://files.example/app.tar.xz", []),
    ("https://files.example/app.tar.zst", []),
    ("https://files.example/app.tbz", []),
    ("https://files.example/app.7z", []),
    ("https://files.example/app#sha256=" + "0" * 64, []),
    ("https://files.example/adminer.php", ["--file=adminer.php"]),
    ("https://files.example/adminer.php", ["--file", "adminer.php"]),
    ("file:///srv/app.tar", []),
    ("/srv/app", []),
    ("./app:1", []),
]
BRANCHES = [
    "https://git.example/app.git",
    "https://git.example/a.zip/app",
    "https://git.example/discord.py",
    "https://git.example/app.whl",
    "ssh://git@git.example/app.zip",
    "git@git.example:app.tar.gz",
    "file:///srv/app.git",
]
# The values and the defaults of 0.1.0, as `helm upgrade --reuse-values` keeps them.
OLD = APP | {
    "depth": 1, "root": "/app", "link": "", "args": [], "auth": [], "initEnv": [], "callable": "application", "path": "",
    "config": None, "port": 8300, "probe": "/", "image": "unit:1.34.2-python3.13", "podstrapImage": "podstrap:uv",
    "sidecar": False, "replicas": 2, "timeout": "10m", "sizeLimit": "1Gi", "drainSeconds": 10, "maxUnavailable": 1,
    "user": 65532, "service": {"type": "ClusterIP", "port": 80, "nodePort": None}, "resources": {}, "initResources": {},
    "env": [], "volumes": [], "volumeMounts": [], "pod": {},
}
POD = "Deployment hello spec template spec"
UNIT, INIT, COPY = f"{POD} containers app", f"{POD} initContainers init", f"{POD} initContainers podstrap"
TEST = "Pod hello-test spec"
HTTP = {"path": "/", "port": "http"}
FOLLOW = {"ref": "main", "follow": True}
SELECTOR = {"app.kubernetes.io/name": "podstrap", "app.kubernetes.io/instance": "hello"}
DIGEST = "sha256:" + "0" * 64
MOUNT = {"name": "data", "mountPath": "/data"}
DATA = {"extraVolumes": [{"name": "data", "emptyDir": {}}], "extraVolumeMounts": [MOUNT]}
TOLERATION = {"key": "spot", "operator": "Exists"}
ZONES = {"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule"}
ROUTE = {"enabled": True, "parentRefs": [{"name": "gateway"}]}
REDIRECT = {"filters": [{"type": "RequestRedirect", "requestRedirect": {"scheme": "https"}}], "backendRefs": []}
HOST = {"enabled": True, "hosts": [{"host": "app.example"}]}
MONITOR = {"enabled": True}
CONFIGURATION = json.dumps(
    {
        "applications": {
            "app": {
                "callable": "app",
                "home": "/app/venv",
                "module": "index",
                "path": "/app",
                "type": "python",
                "working_directory": "/app",
            }
        },
        "listeners": {"*:8300": {"pass": "applications/app"}},
    },
    indent=2,
)


def scaled(**values):
    return {"autoscaling": {"enabled": True} | values}


# Values besides APP, where they arrive, and as what; None: nowhere.
PLACES = [
    ({"image": {"repository": "r:5000/app", "tag": "2"}}, f"{UNIT} image", "r:5000/app:2"),
    ({"image": {"repository": "r/app", "tag": "2"}}, f"{INIT} image", "r/app:2"),
    ({"image": {"digest": DIGEST}}, f"{UNIT} image", f"ghcr.io/freeunitorg/freeunit@{DIGEST}"),
    ({"image": {"pullPolicy": "Always"}}, f"{UNIT} imagePullPolicy", "Always"),
    ({"image": {"pullPolicy": "Always"}}, f"{INIT} imagePullPolicy", "Always"),
    (FOLLOW | {"image": {"tag": "2"}}, f"{POD} initContainers follow image", "ghcr.io/freeunitorg/freeunit:2"),
    ({"podstrapImage": {"repository": "r/podstrap", "tag": "1"}}, f"{COPY} image", "r/podstrap:1"),
    ({"podstrapImage": {"repository": "r/podstrap", "tag": "1"}}, f"{TEST} containers answers image", "r/podstrap:1"),
    ({"podstrapImage": {"digest": DIGEST}, "sidecar": True}, f"{POD} initContainers config image", f"podstrap@{DIGEST}"),
    ({"podstrapImage": {"pullPolicy": "Never"}}, f"{COPY} imagePullPolicy", "Never"),
    (
        {"podstrapImage": {"digest": DIGEST, "pullPolicy": "Always"}, "imageVolume": True},
        f"{POD} volumes podstrap image",
        {"reference": f"podstrap@{DIGEST}", "pullPolicy": "Always"},
    ),
    ({"imagePullSecrets": [{"name": "registry"}]}, f"{POD} imagePullSecrets", [{"name": "registry"}]),
    ({"imagePullSecrets": [{"name": "registry"}]}, f"{TEST} imagePullSecrets", [{"name": "registry"}]),
    ({"nameOverride": "web"}, "Deployment hello-web spec selector matchLabels app.kubernetes.io/name", "web"),
    ({"nameOverride": "ell"}, "Deployment hello spec selector matchLabels app.kubernetes.io/name", "ell"),
    ({"fullnameOverride": "web"}, "Service web spec selector", SELECTOR),
    ({"fullnameOverride": "web"} | FOLLOW, "Service web-follow spec selector", SELECTOR),
    ({"fullnameOverride": "web"}, "Pod web-test spec containers answers args 1", "--repo=http://web:80/"),
    ({}, f"{POD} serviceAccountName", "default"),
    ({}, f"{POD} automountServiceAccountToken", False),
    ({}, "ServiceAccount hello", None),
    ({"serviceAccount": {"create": True}}, "ServiceAccount hello automountServiceAccountToken", False),
    ({"serviceAccount": {"create": True}}, f"{POD} serviceAccountName", "hello"),
    ({"serviceAccount": {"create": True, "name": "app"}}, f"{POD} serviceAccountName", "app"),
    ({"serviceAccount": {"create": True, "name": "app"}}, "ServiceAccount app metadata name", "app"),
    ({"serviceAccount": {"name": "app"}}, f"{POD} serviceAccountName", "app"),
    ({"serviceAccount": {"automount": True}}, f"{POD} automountServiceAccountToken", True),
    ({"serviceAccount": {"create": True, "annotations": {"a": "1"}}}, "ServiceAccount hello metadata annotations", {"a": "1"}),
    ({"podAnnotations": {"a": "1"}}, "Deployment hello spec template metadata annotations a", "1"),
    ({"podLabels": {"team": "web"}}, "Deployment hello spec template metadata labels", SELECTOR | {"team": "web"}),
    ({"podLabels": {"team": "web"}}, "Deployment hello spec selector matchLabels", SELECTOR),
    ({"podLabels": {"team": "web"}}, f"{POD} topologySpreadConstraints 0 labelSelector matchLabels", SELECTOR),
    ({"podLabels": SELECTOR | {"app.kubernetes.io/name": "other"}}, "Deployment hello spec template metadata labels", SELECTOR),
    ({"podSecurityContext": OPENSHIFT}, f"{POD} securityContext runAsUser", None),
    ({"podSecurityContext": OPENSHIFT}, f"{TEST} securityContext fsGroup", None),
    ({"podSecurityContext": {"runAsUser": 1000680000}}, f"{POD} securityContext runAsUser", 1000680000),
    ({"podSecurityContext": {"runAsUser": 1000680000}}, f"{POD} securityContext runAsNonRoot", True),
    ({"securityContext": {"runAsUser": 7}}, f"{UNIT} securityContext runAsUser", 7),
    ({"securityContext": {"runAsUser": 7}}, f"{INIT} securityContext readOnlyRootFilesystem", True),
    ({"securityContext": {"runAsUser": 7}}, f"{TEST} containers answers securityContext runAsUser", 7),
    ({"nodeSelector": {"disk": "ssd"}}, f"{POD} nodeSelector", {"disk": "ssd"}),
    ({"nodeSelector": {"disk": "ssd"}}, f"{TEST} nodeSelector", {"disk": "ssd"}),
    ({"tolerations": [TOLERATION]}, f"{POD} tolerations", [TOLERATION]),
    ({"tolerations": [TOLERATION]}, f"{TEST} tolerations", [TOLERATION]),
    ({"affinity": {"podAntiAffinity": {}}}, f"{POD} affinity", {"podAntiAffinity": {}}),
    ({"topologySpreadConstraints": []}, f"{POD} topologySpreadConstraints", None),
    ({"topologySpreadConstraints": [ZONES]}, f"{POD} topologySpreadConstraints 0 labelSelector", {"matchLabels": SELECTOR}),
    (
        {"topologySpreadConstraints": [ZONES | {"labelSelector": {"matchLabels": {"a": "b"}}}]},
        f"{POD} topologySpreadConstraints 0 labelSelector",
        {"matchLabels": {"a": "b"}},
    ),
    ({"extraPodSpec": {"priorityClassName": "high"}}, f"{POD} priorityClassName", "high"),
    ({"replicaCount": 5}, "Deployment hello spec replicas", 5),
    (scaled() | {"replicaCount": 5}, "Deployment hello spec replicas", None),
    (scaled(), "HorizontalPodAutoscaler hello spec scaleTargetRef name", "hello"),
    (scaled(minReplicas=3), "HorizontalPodAutoscaler hello spec minReplicas", 3),
    (scaled(maxReplicas=4), "HorizontalPodAutoscaler hello spec maxReplicas", 4),
    (
        scaled(targetCPUUtilizationPercentage=50),
        "HorizontalPodAutoscaler hello spec metrics",
        [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}],
    ),
    (
        scaled(targetCPUUtilizationPercentage=None, targetMemoryUtilizationPercentage=60),
        "HorizontalPodAutoscaler hello spec metrics",
        [{"type": "Resource", "resource": {"name": "memory", "target": {"type": "Utilization", "averageUtilization": 60}}}],
    ),
    ({"resources": {"limits": {"memory": "2Gi"}}}, f"{UNIT} resources limits memory", "2Gi"),
    ({"initResources": {"limits": {"memory": "2Gi"}}}, f"{INIT} resources limits memory", "2Gi"),
    ({"extraEnv": [{"name": "A", "value": "1"}]}, f"{UNIT} env", [{"name": "A", "value": "1"}]),
    ({"extraEnv": [{"name": "A", "value": "1"}]}, f"{INIT} env", None),
    ({"envFrom": [{"secretRef": {"name": "shop"}}]}, f"{UNIT} envFrom", [{"secretRef": {"name": "shop"}}]),
    (DATA, f"{POD} volumes data", {"name": "data", "emptyDir": {}}),
    (DATA, f"{UNIT} volumeMounts data", MOUNT),
    (DATA, f"{INIT} volumeMounts data", MOUNT),
    (DATA | FOLLOW, f"{POD} initContainers follow volumeMounts data", MOUNT),
    ({}, f"{UNIT} livenessProbe httpGet", HTTP),
    ({}, f"{UNIT} readinessProbe httpGet", HTTP),
    ({}, f"{UNIT} startupProbe", None),
    ({"livenessProbe": {"httpGet": {"path": "/live"}}}, f"{UNIT} livenessProbe httpGet", HTTP | {"path": "/live"}),
    ({"livenessProbe": {"httpGet": {"path": "/live"}}}, f"{UNIT} livenessProbe periodSeconds", 20),
    ({"livenessProbe": {"tcpSocket": {"port": "http"}}}, f"{UNIT} livenessProbe httpGet", None),
    ({"livenessProbe": None}, f"{UNIT} livenessProbe", None),
    ({"readinessProbe": {"periodSeconds": 9}, "probe": "/ready"}, f"{UNIT} readinessProbe periodSeconds", 9),
    ({"readinessProbe": {"periodSeconds": 9}, "probe": "/ready"}, f"{UNIT} readinessProbe httpGet path", "/ready"),
    ({"readinessProbe": None}, f"{UNIT} readinessProbe", None),
    ({"startupProbe": {"httpGet": HTTP}}, f"{UNIT} startupProbe httpGet", HTTP),
    ({"startupProbe": {"failureThreshold": 9}, "sidecar": True}, f"{UNIT} startupProbe failureThreshold", 9),
    ({"startupProbe": {"failureThreshold": 9}} | FOLLOW, f"{UNIT} startupProbe exec command 1", "status"),
    ({"startupProbe": {"httpGet": HTTP}, "sidecar": True}, f"{UNIT} startupProbe exec", None),
    ({"startupProbe": None, "sidecar": True}, f"{UNIT} startupProbe", None),
    ({"service": {"annotations": {"a": "1"}}}, "Service hello metadata annotations", {"a": "1"}),
    ({"service": {"type": "NodePort", "nodePort": 30000}}, "Service hello spec ports 0 nodePort", 30000),
    ({}, "Ingress hello", None),
    ({"ingress": HOST}, "Ingress hello spec rules 0 host", "app.example"),
    (
        {"ingress": HOST},
        "Ingress hello spec rules 0 http paths",
        [{"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "hello", "port": {"name": "http"}}}}],
    ),
    (
        {"ingress": HOST | {"hosts": [{"host": "a.example", "paths": [{"path": "/a", "pathType": "Exact"}]}]}},
        "Ingress hello spec rules 0 http paths 0 pathType",
        "Exact",
    ),
    ({"ingress": HOST | {"className": "nginx"}}, "Ingress hello spec ingressClassName", "nginx"),
    ({"ingress": HOST | {"annotations": {"a": "1"}}}, "Ingress hello metadata annotations", {"a": "1"}),
    (
        {"ingress": HOST | {"tls": [{"secretName": "tls", "hosts": ["app.example"]}]}},
        "Ingress hello spec tls",
        [{"secretName": "tls", "hosts": ["app.example"]}],
    ),
    ({}, "HTTPRoute hello", None),
    ({"httpRoute": ROUTE}, "HTTPRoute hello spec parentRefs", [{"name": "gateway"}]),
    ({"httpRoute": ROUTE}, "HTTPRoute hello spec rules 0 backendRefs", [{"name": "hello", "port": 80}]),
    ({"httpRoute": ROUTE}, "HTTPRoute hello spec rules 0 matches 0 path value", "/"),
    ({"httpRoute": ROUTE | {"rules": [REDIRECT]}}, "HTTPRoute hello spec rules", [REDIRECT]),
    ({"httpRoute": ROUTE | {"annotations": {"a": "1"}}}, "HTTPRoute hello metadata annotations", {"a": "1"}),
    ({"httpRoute": ROUTE | {"hostnames": ["app.example"]}}, "HTTPRoute hello spec hostnames", ["app.example"]),
    ({}, "Service hello-follow", None),
    (FOLLOW, "Service hello-follow spec ports", [{"name": "http", "port": 8301, "targetPort": "follow"}]),
    (FOLLOW, "Service hello-follow spec type", None),
    (FOLLOW, "Service hello spec ports", [{"name": "http", "port": 80, "targetPort": "http"}]),
    (FOLLOW, f"{POD} volumes webhook", None),
    (
        FOLLOW | {"webhook": {"secretName": "hook", "secretKey": "token"}},
        f"{POD} volumes webhook secret",
        {"secretName": "hook", "defaultMode": 0o440, "items": [{"key": "token", "path": "secret"}]},
    ),
    (FOLLOW | {"metrics": {"serviceMonitor": MONITOR}}, "ServiceMonitor hello spec endpoints 0 path", "/metrics"),
    (
        FOLLOW | {"metrics": {"serviceMonitor": MONITOR | {"interval": "15s", "scrapeTimeout": "5s"}}},
        "ServiceMonitor hello spec endpoints 0",
        {"port": "http", "path": "/metrics", "interval": "15s", "scrapeTimeout": "5s"},
    ),
    (
        FOLLOW | {"metrics": {"serviceMonitor": MONITOR | {"labels": {"release": "prom"}}}},
        "ServiceMonitor hello metadata labels release",
        "prom",
    ),
    ({"timeout": "9m"}, f"{INIT} command 8", "--timeout=9m"),
    (FOLLOW | {"timeout": "9m"}, f"{POD} initContainers follow command 8", "--build-timeout=9m"),
    ({"root": "/srv"}, f"{UNIT} volumeMounts app mountPath", "/srv"),
    ({"port": 8080}, f"{UNIT} ports http containerPort", 8080),
    ({"progressDeadlineSeconds": 900}, "Deployment hello spec progressDeadlineSeconds", 900),
    ({"drainSeconds": 20}, f"{UNIT} lifecycle preStop sleep seconds", 20),
    ({"drainSeconds": 20}, f"{POD} terminationGracePeriodSeconds", 50),
    ({"callable": "app", "sidecar": True}, "ConfigMap hello data unit.conf.json", f"{CONFIGURATION}\n"),
    # A Deployment's name and selector are those of 0.1.0, or `helm upgrade` fails or makes a second Deployment.
    ({}, "Deployment hello spec selector matchLabels", SELECTOR),
]
# The members that the chart uses of objects that Kubernetes does not know, from
# https://gateway-api.sigs.k8s.io/reference/spec/ and https://prometheus-operator.dev/docs/api-reference/api/.
NAME, STRINGS = {"type": "string", "minLength": 1}, {"type": "array", "minItems": 1, "items": {"type": "string"}}


def strictly(required, **properties):
    return {"type": "object", "additionalProperties": False, "required": required, "properties": properties}


def some(items):
    return {"type": "array", "minItems": 1, "items": items}


PARENT = strictly(["name"], name=NAME, namespace=NAME, sectionName=NAME, port={"type": "integer"})
BACKEND = strictly(["name", "port"], name=NAME, port={"type": "integer"}, weight={"type": "integer"})
OBJECTS = some({"type": "object"})
RULE = strictly([], matches=OBJECTS, filters=OBJECTS, backendRefs={"type": "array", "items": BACKEND})
ENDPOINT = strictly(["port"], port=NAME, path=NAME, interval=NAME, scrapeTimeout=NAME)
LABELS = strictly(["matchLabels"], matchLabels={"type": "object", "additionalProperties": NAME})
CUSTOM = {
    ("gateway.networking.k8s.io/v1", "HTTPRoute"): strictly(
        ["parentRefs", "rules"], parentRefs=some(PARENT), hostnames=STRINGS, rules=some(RULE)
    ),
    ("monitoring.coreos.com/v1", "ServiceMonitor"): strictly(
        ["selector", "endpoints"], selector=LABELS, endpoints=some(ENDPOINT)
    ),
}


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
        custom = CUSTOM.get((document["apiVersion"], document["kind"]))
        try:
            if custom:
                jsonschema.validate(document["spec"], custom)
            else:
                kubernetes_validate.validate(document, VERSION, strict=True)
        except (jsonschema.ValidationError, kubernetes_validate.ValidationError, kubernetes_validate.InvalidSchemaError) as error:
            raise Wrong(f"{document['kind']} {document['metadata']['name']}: {error}") from error


def references(documents):
    """Every volume, port, ConfigMap, Secret and label that an object refers to exists."""

    def there(what, name, known):
        if name not in known:
            raise Wrong(f"{what} {name} is not one of {sorted(known, key=str)}")

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
            for source in container.get("envFrom", []):
                there("Secret", source["secretRef"]["name"], FOREIGN | {n for kind, n in named if kind == "Secret"})
        if mounted != set(volumes):
            raise Wrong(f"volumes that no container mounts: {set(volumes) - mounted}")
        if spec.get("serviceAccountName", "default") != "default":
            there("ServiceAccount", spec["serviceAccountName"], {n for kind, n in named if kind == "ServiceAccount"})
    services = {n: d["spec"]["ports"] for (kind, n), d in named.items() if kind == "Service"}
    for document in documents:
        spec = document.get("spec", {})
        if document["kind"] == "HorizontalPodAutoscaler":
            there("Deployment", spec["scaleTargetRef"]["name"], {n for kind, n in named if kind == "Deployment"})
        if document["kind"] == "Ingress":
            for backend in (path["backend"]["service"] for rule in spec["rules"] for path in rule["http"]["paths"]):
                there("Service", backend["name"], services)
                there("port", backend["port"]["name"], {port["name"] for port in services[backend["name"]]})
        if document["kind"] == "HTTPRoute":
            for backend in (backend for rule in spec["rules"] for backend in rule["backendRefs"]):
                there("Service", backend["name"], services)
                there("port", backend["port"], {port["port"] for port in services[backend["name"]]})
        if document["kind"] == "ServiceMonitor":
            labels_of = {n: d["metadata"]["labels"].items() for (kind, n), d in named.items() if kind == "Service"}
            chosen = [n for n, has in labels_of.items() if spec["selector"]["matchLabels"].items() <= has]
            if len(chosen) != 1:
                raise Wrong(f"the ServiceMonitor selects the Services {chosen}")
            for endpoint in spec["endpoints"]:
                there("port", endpoint["port"], {port["name"] for port in services[chosen[0]]})
            continue
        selector = spec.get("selector")
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
    cluster: init fails at the missing volume, and so does a sidecar that follows; apply and status fail at the missing
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
                    program(spec, container, command[0])
                    tried(documents, spec, container, command[1:])
                    count += 1
    return count


def program(spec, container, path):
    """The volume has podstrap at this path: from its image, or copied there."""
    if path in ("podstrap", "/bin/podstrap") and "command" not in container:
        return  # of podstrap's own image

    def inside(container, path):
        at = mount(container, path)
        return at, str(pathlib.PurePath(at.get("subPath", ""), pathlib.PurePath(path).relative_to(at["mountPath"])))

    at, name = inside(container, path)
    [volume] = [volume for volume in spec["volumes"] if volume["name"] == at["name"]]
    if "image" in volume:
        # containerd before 2.2 ignores the subPath of an image volume, without an error.
        if "subPath" in at:
            raise Wrong(f"{container['name']}: the image volume {at['name']} has a subPath")
        there = ["bin/podstrap"]
    else:
        there = []
        for other in containers(spec):
            args = " ".join([*other.get("command", []), *other.get("args", [])])
            for to in re.findall(r"(?:^|\s)(?:--)?copy-self[= ](\S+)", args):
                copied, there_too = inside(other, to)
                there += [there_too] if copied["name"] == at["name"] else []
    if name not in there:
        raise Wrong(f"{container['name']}: {path} is {name} in the volume {at['name']}, which has {there}")


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
        process = subprocess.Popen([PODSTRAP, *args], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            _, said = process.communicate(timeout=1 if subcommand == "sidecar" else 60)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)
            _, said = process.communicate(timeout=60)
        needs_root = subcommand == "sidecar" and any(arg.startswith("--root") for arg in args)
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


def at(documents, path):
    """Returns the value at a path: kind, name, then members; items of a list by their name or number. None if missing."""
    kind, name, *members = path.split()
    value = by_name(documents).get((kind, name))
    for member in members:
        if isinstance(value, list):
            value = {item.get("name") if isinstance(item, dict) else None: item for item in value} | dict(enumerate(value))
            value = value.get(int(member) if member.isdigit() else member)
        else:
            value = (value or {}).get(member)
    return value


def values_arrive():
    """Each value arrives where it belongs, and there is no value that no case sets."""
    for values, path, expected in PLACES:
        documents = chart(APP | values)
        schemas(documents)
        found = at(documents, path)
        expect(f"{path} is {expected!r} with {values}, not {found!r}", found == expected)

    def members(schema, prefix=()):
        for name, member in schema.get("properties", {}).items():
            yield (*prefix, name)
            yield from members(member, (*prefix, name))

    def paths(values, prefix=()):
        for name, value in values.items():
            yield (*prefix, name)
            yield from paths(value, (*prefix, name)) if isinstance(value, dict) else ()

    cases = [*(values for values, _, _ in PLACES), *VARIANTS.values(), *(yaml.safe_load(p.read_text()) for p in EXAMPLES)]
    known = set(members(json.loads((CHART / "values.schema.json").read_text()))) - {("global",)}
    unset = known - {path for values in cases for path in paths(values)}
    expect(f"a case sets {sorted(unset)}", not unset)
    return f"{len(PLACES)} places"


def old_values_are_refused():
    """With the defaults of 0.1.0 instead of the chart's, as `helm upgrade --reuse-values` has them. One error names all."""
    with tempfile.TemporaryDirectory() as directory:
        copied = shutil.copytree(CHART, pathlib.Path(directory, "chart"))
        (copied / "values.yaml").write_text(json.dumps(OLD))
        try:
            run(HELM, "template", "hello", copied)
        except Wrong as error:
            for words in ("image is one text", *(f"{name} is now " for name in OLD.keys() - yaml.safe_load((CHART / "values.yaml").read_text()).keys()), "without --reuse-values"):
                expect(f"{words!r} in {error}", words in str(error))
        else:
            raise Wrong("the chart accepts the values of 0.1.0")


def chart_follows_what_podstrap_follows():
    """The chart and the binary refuse to follow the same sources."""
    with tempfile.TemporaryDirectory() as directory:

        def refuses(repo, args):
            flags = ["sidecar", f"--repo={repo}", f"--root={directory}/missing", *args]
            done = subprocess.run([PODSTRAP, *flags], capture_output=True, text=True, timeout=60)
            return "sidecar --repo needs a Git repository" in done.stderr

        for repo, args in NO_BRANCH + [(repo, []) for repo in BRANCHES]:
            values = APP | FOLLOW | {"repo": repo, "args": args}
            try:
                chart(values)
                refused = False
            except Wrong as error:
                expect(f"a clear error for {repo}: {error}", "follow: the source is an archive" in str(error))
                refused = True
            expect(f"podstrap and the chart agree on {repo} {args}", refuses(repo, args) == refused)
            expect(f"{repo} {args} is in the right list", refused == ((repo, args) in NO_BRANCH))


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
    expect("the checksum does not depend on other values", checksum(APP) == checksum(APP | {"replicaCount": 5}))
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

    def change(good, path, value):
        changed = copy.deepcopy(good)
        *parents, last = path
        at = by_name(changed)
        for part in parents:
            at = at[part]
        at[last] = value
        return changed

    recommended, news = directory(K8S / "recommended"), directory(K8S / "follow")
    rendered = chart(APP | FOLLOW | scaled() | {"ingress": HOST, "httpRoute": ROUTE, "metrics": {"serviceMonitor": MONITOR}})
    route, monitor = (("HTTPRoute", "hello"), "spec"), (("ServiceMonitor", "hello"), "spec")
    paths = (("Ingress", "hello"), "spec", "rules", 0, "http", "paths")
    pod = (("Deployment", "hello"), "spec", "template", "spec")
    init, unit = (*pod, "initContainers", 0), (*pod, "containers", 0)
    copied = (("Deployment", "news"), "spec", "template", "spec", "initContainers")
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
        (schemas, (*route, "parentRefs", 0, "sectionname"), "https"),
        (schemas, (*monitor, "endpoints", 0, "targetport"), "http"),
        (references, (*route, "rules", 0, "backendRefs", 0, "port"), 8301),
        (references, (*monitor, "endpoints", 0, "port"), "follow"),
        (references, (*monitor, "selector", "matchLabels"), SELECTOR),
        (references, (*paths, 0, "backend", "service", "name"), "hallo"),
        (references, (("HorizontalPodAutoscaler", "hello"), "spec", "scaleTargetRef", "name"), "hallo"),
        (references, (("Service", "hello-follow"), "spec", "ports", 0, "targetPort"), "metrics"),
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
        (commands, (*init, "command", 0), "/podstrap/podstrap"),
        (commands, (*init, "volumeMounts", 1, "subPath"), "bin"),
        (commands, (*unit, "volumeMounts", 1, "subPath"), "bin"),
        (commands, (*copied, 1, "command", 0), "/podstrap/podstrap"),
        (commands, (*copied, 0, "args", 1), "/podstrap/podstrap"),
        (references, (*unit, "envFrom"), [{"secretRef": {"name": "shops"}}]),
    ]:
        good = next(good for good in (recommended, rendered, news) if path[0] in by_name(good))
        check(good)
        try:
            check(change(good, path, value))
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
    step("chart: each value arrives", values_arrive)
    step("chart: values of 0.1.0 are refused with a clear error", old_values_are_refused)
    step("chart: follows what podstrap follows", chart_follows_what_podstrap_follows)
    step("chart: checksums and warnings", chart_behaves)
    step(f"chart: {len(REFUSED)} invalid values are refused with a clear error", chart_refuses)
    step("checks find errors", wrong_is_noticed)
    sys.exit(failed and f"{failed} of the above failed")


main()
