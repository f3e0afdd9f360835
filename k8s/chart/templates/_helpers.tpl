{{- /* Names that 0.1.0 had, and their new ones. `helm upgrade --reuse-values` brings the old chart's defaults, too. */ -}}
{{- define "podstrap.renamed" -}}
replicas: replicaCount
env: extraEnv
volumes: extraVolumes
volumeMounts: extraVolumeMounts
user: podSecurityContext.runAsUser, runAsGroup and fsGroup (on OpenShift, null for each)
pod: imagePullSecrets, nodeSelector, tolerations, affinity, and extraPodSpec for other members
{{- end }}

{{- /* Checks with readable messages; the schema would print a pattern, or the login itself. Each template starts with it:
with the values of an old chart, any template could fail first. */ -}}
{{- define "podstrap.check" -}}
{{- $old := list }}
{{- range list "image" "podstrapImage" }}
{{- if kindIs "string" (get $.Values .) }}{{ $old = append $old (printf "%s is one text: set %s.repository and %s.tag (or %s.digest) instead" . . . .) }}{{ end }}
{{- end }}
{{- range $name, $new := include "podstrap.renamed" . | fromYaml }}
{{- if hasKey $.Values $name }}{{ $old = append $old (printf "%s is now %s" $name $new) }}{{ end }}
{{- end }}
{{- with $old }}
{{ fail (printf "these values have the names of an old chart; rename them in your values:\n- %s\nThen give all your values with -f and without --reuse-values: it brings the old names back. --reset-then-reuse-values brings those back that you had set." (join "\n- " .)) }}
{{- end }}
{{- if not .Values.repo -}}
{{ fail "repo is not set: set it to the app's Git repository, archive or file" }}
{{- else if regexMatch "^https?://[^/]*@" .Values.repo -}}
{{ fail "repo: the URL contains a login, which the Deployment would show: put it into a Secret (type kubernetes.io/basic-auth) and add the Secret's name to auth" }}
{{- else if and .Values.module .Values.config -}}
{{ fail "module and config are both set: set module if the chart is to write the configuration, or config for your own" }}
{{- else if not (or .Values.module .Values.config) -}}
{{ fail "neither module nor config is set: set module for a Python app (for example module: wsgi), or config to Unit's configuration" }}
{{- else if contains "@" .Values.store -}}
{{ fail "store: the URL contains a login, which the Deployment would show: put it into a Secret (type kubernetes.io/dockerconfigjson) and add the Secret's name to auth" }}
{{- else if and .Values.store .Values.storeClaim -}}
{{ fail "store and storeClaim are both set: set store for a registry, or storeClaim for a volume" }}
{{- else if and .Values.ingress.enabled (not .Values.ingress.hosts) -}}
{{ fail "ingress.hosts is empty: set it to the app's host names, for example [{host: app.example}]" }}
{{- else if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) -}}
{{ fail "httpRoute.parentRefs is empty: set it to the Gateways, for example [{name: gateway}]" }}
{{- end }}
{{- if .Values.follow }}
{{- if regexMatch "^[0-9a-f]{40}$" .Values.ref -}}
{{ fail "follow: ref is a commit, which never changes: set ref to a branch, or leave it empty for the repository's HEAD" }}
{{- else if include "podstrap.download" . -}}
{{ fail "follow: the source is an archive, a single file or a local path: set repo to a Git repository and remove --file from args, or set follow to false" }}
{{- end }}
{{- else if .Values.webhook.secretName -}}
{{ fail "webhook.secretName is set, but only a sidecar that follows accepts a webhook: set follow to true" }}
{{- else if .Values.metrics.serviceMonitor.enabled -}}
{{ fail "metrics.serviceMonitor.enabled is true, but only a sidecar that follows has metrics: set follow to true" }}
{{- end }}
{{- range list "automountServiceAccountToken" "enableServiceLinks" "terminationGracePeriodSeconds" "initContainers" "containers" "securityContext" "serviceAccountName" "volumes" "imagePullSecrets" "nodeSelector" "tolerations" "affinity" "topologySpreadConstraints" }}
{{- if hasKey $.Values.extraPodSpec . }}{{ fail (printf "extraPodSpec.%s: the chart sets %s itself" . .) }}{{ end }}
{{- end }}
{{- end }}

{{- /* Whether the source is an archive, a file or a directory, and no Git repository: as src/plan/source.rs decides. */ -}}
{{- define "podstrap.download" -}}
{{- $archive := regexMatch "(?i)^(https?|file)://[^?#]*\\.(tar(\\.[a-z0-9]+)?|tgz|tbz2?|tb2|tz2|txz|tzst|tlz|taz|tzo|zip|7z|rar|cpio)([?#]|$)" .Values.repo -}}
{{- $pinned := regexMatch "^(?i)https?://[^#]*#" .Values.repo -}}
{{- $local := not (regexMatch "^[^/]*:" .Values.repo) -}}
{{- if or $archive $pinned $local (regexMatch "(^| )--file[= ]" (join " " .Values.args)) }}true{{ end }}
{{- end }}

{{- define "podstrap.name" -}}
{{ .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- /* Not RELEASE-podstrap, as of `helm create`: an upgrade from 0.1.0 would make a second Deployment. */ -}}
{{- define "podstrap.fullname" -}}
{{- $own := .Values.nameOverride -}}
{{- $name := ternary .Release.Name (printf "%s-%s" .Release.Name $own) (contains $own .Release.Name) -}}
{{ .Values.fullnameOverride | default $name | trunc 56 | trimSuffix "-" }}
{{- end }}

{{- /* A Deployment's selector cannot change: these are the labels of 0.1.0. */ -}}
{{- define "podstrap.selectorLabels" -}}
app.kubernetes.io/name: {{ include "podstrap.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "podstrap.labels" -}}
{{ include "podstrap.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "podstrap.serviceAccountName" -}}
{{ .Values.serviceAccount.name | default (ternary (include "podstrap.fullname" .) "default" .Values.serviceAccount.create) }}
{{- end }}

{{- /* What the spec of the app's Pods and of the test's has in common. */ -}}
{{- define "podstrap.pod" -}}
enableServiceLinks: false
serviceAccountName: {{ include "podstrap.serviceAccountName" . }}
securityContext: {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- range $name := list "imagePullSecrets" "nodeSelector" "tolerations" }}
{{- with get $.Values $name }}
{{ $name }}: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end }}

{{- /* The reference of `image` or `podstrapImage`. */ -}}
{{- define "podstrap.reference" -}}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ required (printf "the image %s has no tag and no digest: set one of them" .repository) .tag }}{{ end }}
{{- end }}

{{- define "podstrap.image" -}}
image: {{ include "podstrap.reference" . }}
imagePullPolicy: {{ .pullPolicy }}
{{- end }}

{{- /* The probe `name` of the app's container, with the values `own`. Without a handler there, or with a part of the same
handler, `default` completes it. */ -}}
{{- define "podstrap.probe" -}}
{{- $default := .default -}}
{{- $own := pick .own "httpGet" "exec" "tcpSocket" "grpc" -}}
{{- range $kind, $handler := $own }}{{ $default = pick $.default $kind }}{{ end -}}
{{- if or $own $default -}}
{{ .name }}: {{- merge (deepCopy .own) $default | toYaml | nindent 2 }}
{{- end }}
{{- end }}

{{- /* The path of the tree in every container. */ -}}
{{- define "podstrap.tree" -}}
{{ .Values.root }}{{ with .Values.link }}/{{ . }}{{ end }}
{{- end }}

{{- /* The path of the configuration, if it is a file in the tree. */ -}}
{{- define "podstrap.configPath" -}}
{{- if and (kindIs "string" .Values.config) (not (contains "{" (.Values.config | default "{"))) -}}
{{ include "podstrap.tree" . }}/{{ .Values.config }}
{{- end }}
{{- end }}

{{- /* Unit's configuration, if it is not a file in the tree. */ -}}
{{- define "podstrap.config" -}}
{{- if .Values.config -}}
{{- if kindIs "string" .Values.config }}{{ .Values.config }}{{ else }}{{ toPrettyJson .Values.config }}{{ end }}
{{- else -}}
{{- $tree := include "podstrap.tree" . -}}
{{- $path := printf "%s/%s" $tree .Values.path | trimSuffix "/" -}}
{{- $app := dict "type" "python" "home" (printf "%s/venv" $tree) "path" $path "working_directory" $path "module" .Values.module "callable" .Values.callable -}}
{{- $listeners := dict (printf "*:%v" .Values.port) (dict "pass" "applications/app") -}}
{{ dict "listeners" $listeners "applications" (dict "app" $app) | toPrettyJson }}
{{- end }}
{{- end }}

{{- /* The flags for the source and the environment. */ -}}
{{- define "podstrap.release" -}}
- {{ printf "--repo=%s" .Values.repo | quote }}
{{- with .Values.ref }}
- {{ printf "--ref=%s" . | quote }}
{{- end }}
- --depth={{ .Values.depth }}
- {{ printf "--root=%s" .Values.root | quote }}
{{- with .Values.link }}
- {{ printf "--link=%s" . | quote }}
{{- end }}
{{- if .Values.module }}
- --venv=venv
{{- end }}
{{- range .Values.auth }}
- --auth=/secrets/{{ . }}
{{- end }}
{{- if .Values.storeClaim }}
- --store=/envs
{{- end }}
{{- with .Values.store }}
- {{ printf "--store=%s" . | quote }}
{{- end }}
- --size-limit={{ .Values.sizeLimit }}
{{- range .Values.args }}
- {{ . | quote }}
{{- end }}
{{- end }}

{{- /* What both commands that build a release mount. */ -}}
{{- define "podstrap.mounts" -}}
- {name: app, mountPath: {{ .Values.root }}}
- {name: podstrap, mountPath: /podstrap, readOnly: true}
{{- if .Values.storeClaim }}
- {name: envs, mountPath: /envs}
{{- end }}
{{- range .Values.auth }}
- {name: secret-{{ . }}, mountPath: /secrets/{{ . }}, readOnly: true}
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* Resources of podstrap's own small containers. */ -}}
{{- define "podstrap.small" -}}
requests: {cpu: 10m, memory: 32Mi}
limits: {memory: 64Mi}
{{- end }}
