{{/* The names of all servers, as a list. */}}
{{- define "gastown.serverNames" -}}
{{- range $server := list "refinery-ctl" "witness-ctl" "beadstore-ctl" }}
{{- $svc := printf "%s.%s.svc" $server $.Release.Namespace }}
- {{ $server }}
- {{ $server }}.{{ $.Release.Namespace }}
- {{ $svc }}
- {{ $svc }}.{{ $.Values.clusterDomain }}
{{- end }}
{{- end }}

{{/* cert-manager's objects: the servers' certificate, and an authority for it where the values name none. */}}
{{- define "gastown.certificates" -}}
{{- $cm := .Values.tls.certManager -}}
{{- $issuer := $cm.issuerRef -}}
{{- $meta := dict "root" . "name" "tls" "namespace" true -}}
{{- if not $issuer }}
{{- $issuer = dict "name" "gastown-ca" "kind" "Issuer" }}
---
apiVersion: cert-manager.io/v1
kind: Issuer
metadata: {{- include "gastown.metadata" (merge (dict "as" "gastown-self") $meta) | nindent 2 }}
spec: {selfSigned: {}}
---
apiVersion: cert-manager.io/v1
kind: Certificate
metadata: {{- include "gastown.metadata" (merge (dict "as" "gastown-ca") $meta) | nindent 2 }}
spec:
  isCA: true
  commonName: gastown
  secretName: gastown-ca
  # As long as the chart's own: pods trust it for their whole life.
  duration: 87600h
  privateKey: {algorithm: ECDSA, size: 256}
  issuerRef: {name: gastown-self, kind: Issuer}
---
apiVersion: cert-manager.io/v1
kind: Issuer
metadata: {{- include "gastown.metadata" (merge (dict "as" "gastown-ca") $meta) | nindent 2 }}
spec: {ca: {secretName: gastown-ca}}
{{- end }}
---
apiVersion: cert-manager.io/v1
kind: Certificate
metadata: {{- include "gastown.metadata" (merge (dict "as" (include "gastown.tlsSecret" .) "annotations" $cm.annotations) $meta) | nindent 2 }}
spec:
  secretName: {{ include "gastown.tlsSecret" . | quote }}
  duration: {{ $cm.duration }}
  renewBefore: {{ $cm.renewBefore }}
  privateKey: {algorithm: ECDSA, size: 256, rotationPolicy: Always}
  dnsNames: {{- include "gastown.serverNames" . | nindent 4 }}
  issuerRef: {{- toYaml $issuer | nindent 4 }}
{{- end }}
