{{/* What the cluster-scoped names of a release begin with: another chart's object never has such a name. */}}
{{- define "gastown.prefix" -}}
{{ ternary .Release.Name (printf "%s-gastown" .Release.Name) (contains "gastown" .Release.Name) }}
{{- end }}

{{/* The programs of the controllers; the key of a controller's values is its name without -ctl. */}}
{{- define "gastown.controllers" -}}
[rig-ctl, polecat-ctl, convoy-ctl, witness-ctl, refinery-ctl, beadstore-ctl]
{{- end }}

{{/*
The values of one controller, as YAML: those of `common`, overridden by the controller's block. Lists replace
each other, maps are merged, null clears. Takes {root, name}.
*/}}
{{- define "gastown.values" -}}
{{- include "gastown.checkValues" .root -}}
{{- $block := index .root.Values (trimSuffix "-ctl" .name) | default dict -}}
{{- $values := mustMergeOverwrite (deepCopy .root.Values.common) (deepCopy $block) -}}
{{- /* They are not in values.yaml, where they would come back when null clears a value of the block. */}}
{{- $resources := index (include "gastown.resources" . | fromYaml) .name -}}
{{- $_ := set $values "resources" (mustMergeOverwrite $resources ($values.resources | default dict)) -}}
{{- $image := $values.image | default dict -}}
{{- $_ := set $values "image" (set $image "repository" ($image.repository | default .name)) -}}
{{- toYaml $values -}}
{{- end }}

{{/* What each controller requests, and its limits, where the values set nothing else. */}}
{{- define "gastown.resources" -}}
rig-ctl: &small
  requests: {cpu: 10m, memory: 32Mi}
  limits: {memory: 256Mi}
polecat-ctl: *small
convoy-ctl: *small
witness-ctl: *small
refinery-ctl:
  requests: {cpu: 20m, memory: 64Mi}
  # Merging large files needs memory for a short time.
  limits: {memory: 1Gi}
beadstore-ctl:
  requests: {cpu: 10m, memory: 64Mi}
  # A store is kept in memory as a whole, up to 200,000 beads.
  limits: {memory: 1Gi}
{{- end }}

{{/* The name of a controller's service account. Takes {root, name}. */}}
{{- define "gastown.account" -}}
{{- $account := (include "gastown.values" . | fromYaml).serviceAccount | default dict -}}
{{ $account.name | default .name }}
{{- end }}

{{/* Labels that select a controller's pods; they never change. Takes {root, name}. */}}
{{- define "gastown.selector" -}}
app.kubernetes.io/name: {{ .name }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
{{- end }}

{{/* Labels of a controller's pods: they change with its image alone, not with the chart. Takes {root, name}. */}}
{{- define "gastown.podLabels" -}}
{{ include "gastown.selector" . }}
app.kubernetes.io/version: {{ include "gastown.version" . | quote }}
app.kubernetes.io/component: {{ .name }}
app.kubernetes.io/part-of: gastown-operator
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- end }}

{{/* Labels of every object. Takes {root, name}. */}}
{{- define "gastown.labels" -}}
{{ include "gastown.podLabels" . }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/*
The metadata of an object. Takes a dict:
  root, name   as for the labels
  as           the object's name; by default `name`
  namespace    its namespace; the release's where it is true, none where it is absent
  labels       further labels
  annotations  further annotations
*/}}
{{- define "gastown.metadata" -}}
name: {{ .as | default .name | quote }}
{{- with .namespace }}
namespace: {{ ternary $.root.Release.Namespace . (kindIs "bool" .) | quote }}
{{- end }}
labels:
  {{- include "gastown.labels" . | nindent 2 }}
  {{- with .labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with merge (dict) (.annotations | default dict) (.root.Values.commonAnnotations | default dict) }}
annotations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/*
The version that an object's label has: the tag of the controller's image, or the beginning of its digest;
the chart's appVersion for what is no controller's. Takes {root, name}.
*/}}
{{- define "gastown.version" -}}
{{- $image := dict -}}
{{- if hasSuffix "-ctl" .name }}{{ $image = (include "gastown.values" . | fromYaml).image }}{{ end -}}
{{- if and $image.digest (not $image.tag) -}}
{{ $image.digest | replace ":" "-" | trunc 19 }}
{{- else -}}
{{ $image.tag | default .root.Chart.AppVersion | trunc 63 | trimAll "-_." }}
{{- end -}}
{{- end }}

{{/* The full name of an image. Takes {root, image}. */}}
{{- define "gastown.image" -}}
{{- $name := printf "%s/%s" (.image.registry | default .root.Values.imageRegistry) .image.repository -}}
{{- if or .image.tag (not .image.digest) }}{{ $name = printf "%s:%s" $name (.image.tag | default .root.Chart.AppVersion) }}{{ end -}}
{{- with .image.digest }}{{ $name = printf "%s@%s" $name . }}{{ end -}}
{{ $name }}
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
