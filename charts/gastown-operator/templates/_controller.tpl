{{/*
All objects of one controller. Takes a dict:
  root    the chart's context
  name    the program, also the name of its namespaced objects: rig-ctl
  env     further environment variables of the container (list)
  ports   ports beside the admin server's, by name (dict)
  server  whether it serves TLS: mounts the key, not only the CA
  client  whether it calls other controllers: mounts the CA and a token
  files   folders with the keys of a ConfigMap: {path, configMap} by name of the volume (dict)
  dirs    directories that it writes to, by name of the volume (dict): path, and memory with sizeLimit, or
          sizeLimit, or persistence, with which each replica has a volume that it keeps
*/}}
{{- define "gastown.controller" -}}
{{- $root := .root -}}
{{- $name := .name -}}
{{- $v := include "gastown.values" . | fromYaml -}}
{{- $account := $v.serviceAccount | default dict -}}
{{- if $account.create }}
---
apiVersion: v1
kind: ServiceAccount
metadata: {{- include "gastown.metadata" (merge (dict "as" (include "gastown.account" .) "namespace" true "labels" $account.labels "annotations" $account.annotations) .) | nindent 2 }}
automountServiceAccountToken: false
{{- end }}
{{- if $root.Values.rbac.create }}
{{ include "gastown.roles" . }}
{{- end }}
---
apiVersion: v1
kind: Service
metadata: {{- include "gastown.metadata" (merge (dict "namespace" true "labels" $v.service.labels "annotations" $v.service.annotations) .) | nindent 2 }}
spec:
  selector: {{- include "gastown.selector" . | nindent 4 }}
  {{- with $v.service.ipFamilyPolicy }}
  ipFamilyPolicy: {{ . }}
  {{- end }}
  {{- with $v.service.ipFamilies }}
  ipFamilies: {{- toYaml . | nindent 4 }}
  {{- end }}
  ports:
    - {name: metrics, port: 8080, targetPort: admin, appProtocol: http}
    {{- range $port, $number := .ports }}
    - {name: {{ $port }}, port: {{ $number }}, targetPort: {{ $port }}}
    {{- end }}
{{ include "gastown.scaling" . }}
{{- $kept := dict }}
{{- range $volume, $dir := .dirs }}
{{- with $dir.persistence }}
{{- if .enabled }}
{{- $_ := set $kept $volume . }}
{{- end }}
{{- end }}
{{- end }}
---
apiVersion: apps/v1
kind: {{ include "gastown.workload" . }}
metadata: {{- include "gastown.metadata" (merge (dict "namespace" true "labels" $v.deploymentLabels "annotations" $v.deploymentAnnotations) .) | nindent 2 }}
spec:
  {{- if and (not $v.autoscaling.enabled) (not (kindIs "invalid" $v.replicas)) }}
  replicas: {{ int $v.replicas }}
  {{- end }}
  {{- if not (kindIs "invalid" $v.revisionHistoryLimit) }}
  revisionHistoryLimit: {{ int $v.revisionHistoryLimit }}
  {{- end }}
  selector:
    matchLabels: {{- include "gastown.selector" . | nindent 6 }}
  {{- if $kept }}
  serviceName: {{ $name }}
  # Replicas share their work and need not wait for each other.
  podManagementPolicy: Parallel
  updateStrategy: {type: RollingUpdate}
  volumeClaimTemplates:
    {{- range $volume, $claim := $kept }}
    - metadata:
        name: {{ $volume }}
        {{- with $claim.labels }}
        labels: {{- toYaml . | nindent 10 }}
        {{- end }}
        {{- with $claim.annotations }}
        annotations: {{- toYaml . | nindent 10 }}
        {{- end }}
      spec:
        accessModes: {{- toYaml $claim.accessModes | nindent 10 }}
        {{- with $claim.storageClassName }}
        storageClassName: {{ . | quote }}
        {{- end }}
        resources: {requests: {storage: {{ $claim.size | quote }}}}
    {{- end }}
  {{- with (first (values $kept)).retention }}
  persistentVolumeClaimRetentionPolicy: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- else }}
  {{- with $v.strategy }}
  strategy: {{- (eq (.type | default "RollingUpdate") "Recreate") | ternary (omit . "rollingUpdate") . | toYaml | nindent 4 }}
  {{- end }}
  {{- end }}
  template:
    metadata:
      labels:
        {{- include "gastown.podLabels" . | nindent 8 }}
        {{- with $v.podLabels }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      annotations:
        kubectl.kubernetes.io/default-container: {{ $name }}
        {{- with $v.podAnnotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec:
      serviceAccountName: {{ include "gastown.account" . | quote }}
      automountServiceAccountToken: {{ $v.automountServiceAccountToken }}
      enableServiceLinks: {{ $v.enableServiceLinks }}
      {{- with $root.Values.imagePullSecrets }}
      imagePullSecrets:
        {{- range . }}
        - name: {{ . | quote }}
        {{- end }}
      {{- end }}
      {{- with $v.priorityClassName }}
      priorityClassName: {{ . | quote }}
      {{- end }}
      {{- with $v.runtimeClassName }}
      runtimeClassName: {{ . | quote }}
      {{- end }}
      {{- with $v.schedulerName }}
      schedulerName: {{ . | quote }}
      {{- end }}
      {{- with $v.nodeSelector }}
      nodeSelector: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $v.tolerations }}
      tolerations: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $v.affinity }}
      affinity: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $v.topologySpreadConstraints }}
      topologySpreadConstraints:
        {{- range . }}
        {{- $own := dict "matchLabels" (include "gastown.selector" $ | fromYaml) }}
        - {{- set (deepCopy .) "labelSelector" (.labelSelector | default $own) | toYaml | nindent 10 }}
        {{- end }}
      {{- end }}
      {{- with $v.dnsPolicy }}
      dnsPolicy: {{ . }}
      {{- end }}
      {{- with $v.dnsConfig }}
      dnsConfig: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $v.hostAliases }}
      hostAliases: {{- toYaml . | nindent 8 }}
      {{- end }}
      terminationGracePeriodSeconds: {{ int $v.terminationGracePeriodSeconds }}
      {{- $ids := ternary (dict) (dict "runAsUser" 65532 "runAsGroup" 65532 "fsGroup" 65532) $root.Values.openshift }}
      {{- $pod := merge (dict "runAsNonRoot" true "seccompProfile" (dict "type" "RuntimeDefault")) $ids }}
      securityContext: {{- mustMergeOverwrite $pod ($v.podSecurityContext | default dict) | toYaml | nindent 8 }}
      containers:
        - name: {{ $name }}
          image: {{ include "gastown.image" (dict "root" $root "image" $v.image) | quote }}
          imagePullPolicy: {{ $v.image.pullPolicy | quote }}
          {{- with $v.extraArgs }}
          args: {{- toYaml . | nindent 12 }}
          {{- end }}
          env:
            # A statically linked program cannot find it out when the user has no passwd entry.
            - {name: HOME, value: /tmp}
            - {name: GASTOWN_NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
            - {name: GASTOWN_POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
            - {name: GASTOWN_POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
            {{- $log := $v.log | default dict }}
            - {name: GASTOWN_LOG_FORMAT, value: {{ $log.format | default $root.Values.log.format | quote }}}
            {{- with $log.filter | default $root.Values.log.filter }}
            - {name: GASTOWN_LOG, value: {{ quote . }}}
            {{- end }}
            {{- with $root.Values.telemetry }}
            {{- if .otlpEndpoint }}
            - {name: OTEL_EXPORTER_OTLP_ENDPOINT, value: {{ quote .otlpEndpoint }}}
            - {name: OTEL_EXPORTER_OTLP_PROTOCOL, value: {{ quote .protocol }}}
            - {name: OTEL_TRACES_SAMPLER_ARG, value: {{ quote .samplingRatio }}}
            {{- if .headersSecret }}
            - {name: OTEL_EXPORTER_OTLP_HEADERS, valueFrom: {secretKeyRef: {name: {{ quote .headersSecret }}, key: headers}}}
            {{- end }}
            {{- if .caConfigMap }}
            - {name: OTEL_EXPORTER_OTLP_CERTIFICATE, value: /var/run/gastown/telemetry/ca.crt}
            {{- end }}
            {{- if .logs }}
            - {name: OTEL_LOGS_EXPORTER, value: otlp}
            {{- end }}
            {{- if .metrics }}
            - {name: OTEL_METRICS_EXPORTER, value: otlp}
            {{- end }}
            {{- $attributes := .resourceAttributes | default dict }}
            {{- if .clusterName }}
            {{- $attributes = merge (dict "k8s.cluster.name" .clusterName) $attributes }}
            {{- end }}
            {{- if $attributes }}
            {{- $pairs := list }}
            {{- range $key, $value := $attributes }}
            {{- $pairs = append $pairs (printf "%s=%s" $key (urlquery $value | replace "+" "%20")) }}
            {{- end }}
            - {name: OTEL_RESOURCE_ATTRIBUTES, value: {{ join "," $pairs | quote }}}
            {{- end }}
            {{- end }}
            {{- end }}
            {{- range .env }}
            {{- if .valueFrom }}
            - {name: {{ .name }}, valueFrom: {{ toJson .valueFrom }}}
            {{- else }}
            - {name: {{ .name }}, value: {{ quote .value }}}
            {{- end }}
            {{- end }}
            {{- with $v.extraEnv }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
          {{- with $v.extraEnvFrom }}
          envFrom: {{- toYaml . | nindent 12 }}
          {{- end }}
          ports:
            - {name: admin, containerPort: 8080}
            {{- range $port, $number := .ports }}
            - {name: {{ $port }}, containerPort: {{ $number }}}
            {{- end }}
          {{- with $v.startupProbe }}
          startupProbe:
            httpGet: {path: /livez, port: admin}
            {{- toYaml . | nindent 12 }}
          {{- end }}
          {{- with $v.livenessProbe }}
          livenessProbe:
            httpGet: {path: /livez, port: admin}
            {{- toYaml . | nindent 12 }}
          {{- end }}
          {{- with $v.readinessProbe }}
          readinessProbe:
            httpGet: {path: /readyz, port: admin}
            {{- toYaml . | nindent 12 }}
          {{- end }}
          resources: {{- toYaml $v.resources | nindent 12 }}
          {{- $context := dict "allowPrivilegeEscalation" false "readOnlyRootFilesystem" true "capabilities" (dict "drop" (list "ALL")) }}
          securityContext: {{- mustMergeOverwrite $context ($v.containerSecurityContext | default dict) | toYaml | nindent 12 }}
          {{- $telemetryCa := and $root.Values.telemetry.otlpEndpoint $root.Values.telemetry.caConfigMap }}
          {{- if or .server .client .files .dirs $v.extraVolumeMounts $telemetryCa }}
          volumeMounts:
            {{- if $telemetryCa }}
            - {name: telemetry, mountPath: /var/run/gastown/telemetry, readOnly: true}
            {{- end }}
            {{- if or .server .client }}
            - {name: tls, mountPath: /var/run/gastown/tls, readOnly: true}
            {{- end }}
            {{- if .client }}
            - {name: token, mountPath: /var/run/gastown/token, readOnly: true}
            {{- end }}
            {{- range $volume, $folder := .files }}
            - {name: {{ $volume }}, mountPath: {{ $folder.path }}, readOnly: true}
            {{- end }}
            {{- range $volume, $dir := .dirs }}
            - {name: {{ $volume }}, mountPath: {{ $dir.path }}}
            {{- end }}
            {{- with $v.extraVolumeMounts }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
          {{- end }}
      {{- if or .server .client .files .dirs $v.extraVolumes $telemetryCa }}
      volumes:
        {{- if $telemetryCa }}
        # The controller starts without it: what telemetry lacks is a warning.
        - name: telemetry
          configMap: {name: {{ quote $telemetryCa }}, optional: true}
        {{- end }}
        {{- if or .server .client }}
        - name: tls
          secret:
            secretName: {{ include "gastown.tlsSecret" $root | quote }}
            {{- if not .server }}
            # A client needs the authority's certificate, not the key.
            items: [{key: ca.crt, path: ca.crt}]
            {{- end }}
        {{- end }}
        {{- if .client }}
        - name: token
          projected:
            sources:
              - serviceAccountToken: {audience: gastown, expirationSeconds: 3600, path: token}
        {{- end }}
        {{- range $volume, $folder := .files }}
        - name: {{ $volume }}
          configMap: {name: {{ $folder.configMap }}}
        {{- end }}
        {{- range $volume, $dir := .dirs }}
        {{- if hasKey $kept $volume }}
        {{- continue }}
        {{- end }}
        - name: {{ $volume }}
          {{- if $dir.memory }}
          # Keys are never on the node's disk.
          emptyDir: {medium: Memory, sizeLimit: {{ $dir.sizeLimit | quote }}}
          {{- else if $dir.sizeLimit }}
          emptyDir: {sizeLimit: {{ $dir.sizeLimit | quote }}}
          {{- else }}
          emptyDir: {}
          {{- end }}
        {{- end }}
        {{- with $v.extraVolumes }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- end }}
{{ end }}
