{{/* Labels that select a controller's pods; they never change. Takes {root, name}. */}}
{{- define "gastown.selector" -}}
app.kubernetes.io/name: {{ .name }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
{{- end }}

{{/* Labels of every object. Takes {root, name}. */}}
{{- define "gastown.labels" -}}
{{ include "gastown.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/component: {{ .name }}
app.kubernetes.io/part-of: gastown-operator
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{/* The full name of an image. Takes {root, image}. */}}
{{- define "gastown.image" -}}
{{ .root.Values.imageRegistry }}/{{ .image.repository }}:{{ .image.tag | default .root.Chart.AppVersion }}
{{- end }}

{{/* The name of the Secret with ca.crt, tls.crt and tls.key. */}}
{{- define "gastown.tlsSecret" -}}
{{ .Values.tls.existingSecret | default "gastown-tls" }}
{{- end }}

{{/* The rules of a generated file. Takes {root, file}. Fails when the file is not a list of rules: a role must not be rendered without its rules. */}}
{{- define "gastown.rules" -}}
{{- $rules := .root.Files.Get .file | fromYamlArray -}}
{{- if or (not $rules) (not (kindIs "map" (first $rules))) -}}
{{- fail (printf "%s is missing or holds no rules" .file) -}}
{{- end -}}
{{- toYaml $rules -}}
{{- end }}
