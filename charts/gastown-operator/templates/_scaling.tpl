{{/* The kind of a controller's workload: a Deployment, unless each replica has volumes that it keeps. */}}
{{- define "gastown.workload" -}}
{{- $kind := "Deployment" -}}
{{- range .dirs -}}
{{- with .persistence -}}
{{- if .enabled }}{{ $kind = "StatefulSet" }}{{ end -}}
{{- end -}}
{{- end -}}
{{- $kind -}}
{{- end -}}

{{/* How many replicas one controller has, and how many may be away. Takes {root, name}. */}}
{{- define "gastown.scaling" -}}
{{- $v := include "gastown.values" . | fromYaml -}}
{{- $hpa := $v.autoscaling -}}
{{- $pdb := $v.podDisruptionBudget -}}
{{- $least := ternary $hpa.minReplicas ($v.replicas | default 1) (eq $hpa.enabled true) | int -}}
{{- if or (eq (toString $pdb.enabled) "true") (and (eq (toString $pdb.enabled) "auto") (gt $least 1)) }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {{- include "gastown.metadata" (merge (dict "namespace" true) .) | nindent 2 }}
spec:
  {{- $isSet := dict }}
  {{- range $key := list "minAvailable" "maxUnavailable" }}
  {{- $value := index $pdb $key }}
  {{- if not (or (kindIs "invalid" $value) (eq (toString $value) "")) }}
  {{- $_ := set $isSet $key $value }}
  {{ $key }}: {{ toJson $value }}
  {{- end }}
  {{- end }}
  {{- if not $isSet }}
  minAvailable: 1
  {{- else if gt (len $isSet) 1 }}
  {{- fail (printf "podDisruptionBudget of %s: set minAvailable or maxUnavailable, not both" .name) }}
  {{- end }}
  {{- with $pdb.unhealthyPodEvictionPolicy }}
  unhealthyPodEvictionPolicy: {{ . }}
  {{- end }}
  selector:
    matchLabels: {{- include "gastown.selector" . | nindent 6 }}
{{- end }}
{{- $vpa := $v.verticalPodAutoscaler }}
{{- if $vpa.enabled }}
---
apiVersion: autoscaling.k8s.io/v1
kind: VerticalPodAutoscaler
metadata: {{- include "gastown.metadata" (merge (dict "namespace" true) .) | nindent 2 }}
spec:
  targetRef: {apiVersion: apps/v1, kind: {{ include "gastown.workload" . }}, name: {{ .name }}}
  updatePolicy: {updateMode: {{ quote $vpa.updateMode }}}
  resourcePolicy:
    containerPolicies:
      - containerName: {{ .name }}
        controlledResources: {{- toYaml $vpa.controlledResources | nindent 10 }}
        controlledValues: {{ $vpa.controlledValues }}
        {{- with $vpa.minAllowed }}
        minAllowed: {{- toYaml . | nindent 10 }}
        {{- end }}
        {{- with $vpa.maxAllowed }}
        maxAllowed: {{- toYaml . | nindent 10 }}
        {{- end }}
{{- end }}
{{- if $hpa.enabled }}
{{- $metrics := list }}
{{- range $resource, $percent := dict "cpu" $hpa.targetCPUUtilizationPercentage "memory" $hpa.targetMemoryUtilizationPercentage }}
{{- with $percent }}
{{- $target := dict "type" "Utilization" "averageUtilization" (int .) }}
{{- $metrics = append $metrics (dict "type" "Resource" "resource" (dict "name" $resource "target" $target)) }}
{{- end }}
{{- end }}
{{- $metrics = concat $metrics ($hpa.metrics | default list) }}
{{- if not $metrics }}
{{- fail (printf "autoscaling of %s has no metric: set targetCPUUtilizationPercentage, targetMemoryUtilizationPercentage or metrics" .name) }}
{{- end }}
{{- if gt (int $hpa.minReplicas) (int $hpa.maxReplicas) }}
{{- fail (printf "autoscaling of %s: minReplicas (%d) is more than maxReplicas (%d)" .name (int $hpa.minReplicas) (int $hpa.maxReplicas)) }}
{{- end }}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {{- include "gastown.metadata" (merge (dict "namespace" true) .) | nindent 2 }}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: {{ include "gastown.workload" . }}, name: {{ .name }}}
  minReplicas: {{ int $hpa.minReplicas }}
  maxReplicas: {{ int $hpa.maxReplicas }}
  metrics: {{- toYaml $metrics | nindent 4 }}
  {{- with $hpa.behavior }}
  behavior: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- end }}
