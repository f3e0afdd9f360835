{{- /* Checks with readable messages; the schema would print a pattern, or the login itself. */ -}}
{{- define "podstrap.check" -}}
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
{{- else if and .Values.follow (regexMatch "^[0-9a-f]{40}$" .Values.ref) -}}
{{ fail "follow: ref is a commit, which never changes: set ref to a branch, or leave it empty for the repository's HEAD" }}
{{- else if and .Values.store .Values.storeClaim -}}
{{ fail "store and storeClaim are both set: set store for a registry, or storeClaim for a volume" }}
{{- end }}
{{- range list "automountServiceAccountToken" "enableServiceLinks" "securityContext" "terminationGracePeriodSeconds" "topologySpreadConstraints" "initContainers" "containers" "volumes" }}
{{- if hasKey $.Values.pod . }}{{ fail (printf "pod.%s: the chart sets %s itself" . .) }}{{ end }}
{{- end }}
{{- end }}

{{- define "podstrap.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "podstrap.labels" -}}
{{ include "podstrap.selector" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
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
- {name: podstrap, mountPath: /podstrap, subPath: bin, readOnly: true}
{{- if .Values.storeClaim }}
- {name: envs, mountPath: /envs}
{{- end }}
{{- range .Values.auth }}
- {name: secret-{{ . }}, mountPath: /secrets/{{ . }}, readOnly: true}
{{- end }}
{{- with .Values.volumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* The restricted Pod Security Standard. */ -}}
{{- define "podstrap.podSecurity" -}}
runAsNonRoot: true
{{- with .Values.user }}
runAsUser: {{ int64 . }}
runAsGroup: {{ int64 . }}
fsGroup: {{ int64 . }}
fsGroupChangePolicy: OnRootMismatch
{{- end }}
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "podstrap.security" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- /* Resources of podstrap's own small containers. */ -}}
{{- define "podstrap.small" -}}
requests: {cpu: 10m, memory: 32Mi}
limits: {memory: 64Mi}
{{- end }}
