{{/* The roles of one controller, and who has them. Takes {root, name}. */}}
{{- define "gastown.roles" -}}
{{- $root := .root -}}
{{- $name := .name -}}
{{- $ns := $root.Release.Namespace -}}
{{- $clusterName := printf "%s-%s" (include "gastown.prefix" $root) $name -}}
{{- $subject := dict "kind" "ServiceAccount" "name" (include "gastown.account" .) "namespace" $ns | toJson -}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {{- include "gastown.metadata" (merge (dict "as" $clusterName) .) | nindent 2 }}
rules: {{- include "gastown.rules" (dict "root" $root "file" (printf "files/rbac/%s-cluster.yaml" $name)) | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {{- include "gastown.metadata" (merge (dict "as" $clusterName) .) | nindent 2 }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {{ $clusterName }}}
subjects: [{{ $subject }}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {{- include "gastown.metadata" (merge (dict "namespace" true) .) | nindent 2 }}
rules: {{- include "gastown.rules" (dict "root" $root "file" (printf "files/rbac/%s-namespace.yaml" $name)) | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{- include "gastown.metadata" (merge (dict "namespace" true) .) | nindent 2 }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: {{ $name }}}
subjects: [{{ $subject }}]
{{- range $other := (include "gastown.values" . | fromYaml).secretNamespaces }}
{{- if ne $other $ns }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {{- include "gastown.metadata" (merge (dict "as" (printf "%s-secrets" $clusterName) "namespace" $other) $) | nindent 2 }}
rules: {{- include "gastown.rules" (dict "root" $root "file" (printf "files/rbac/%s-secrets.yaml" $name)) | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{- include "gastown.metadata" (merge (dict "as" (printf "%s-secrets" $clusterName) "namespace" $other) $) | nindent 2 }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: {{ $clusterName }}-secrets}
subjects: [{{ $subject }}]
{{- end }}
{{- end }}
{{- end }}
