{{/*
All objects of one controller. Takes a dict:
  root    the chart's context
  name    the program, also the name of every object: rig-ctl
  values  the controller's block of the values
  env     further environment variables of the container (list)
  ports   ports beside the admin server's, by name (dict)
  server  whether it serves TLS: mounts the key, not only the CA
  client  whether it calls other controllers: mounts the CA and a token
  dirs    directories that it writes to: {path, sizeLimit} by name of the volume (dict)
*/}}
{{- define "gastown.controller" -}}
{{- $root := .root -}}
{{- $name := .name -}}
{{- $v := .values -}}
{{- $ns := $root.Release.Namespace -}}
{{- $clusterName := printf "gastown-%s" $name -}}
---
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ $name }}
  namespace: {{ $ns | quote }}
  labels: {{- include "gastown.labels" . | nindent 4 }}
  {{- with $v.serviceAccount.annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
automountServiceAccountToken: false
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: {{ $clusterName }}
  labels: {{- include "gastown.labels" . | nindent 4 }}
rules: {{- include "gastown.rules" (dict "root" $root "file" (printf "files/rbac/%s-cluster.yaml" $name)) | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: {{ $clusterName }}
  labels: {{- include "gastown.labels" . | nindent 4 }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {{ $clusterName }}}
subjects:
  - {kind: ServiceAccount, name: {{ $name }}, namespace: {{ $ns | quote }}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: {{ $name }}
  namespace: {{ $ns | quote }}
  labels: {{- include "gastown.labels" . | nindent 4 }}
rules: {{- include "gastown.rules" (dict "root" $root "file" (printf "files/rbac/%s-namespace.yaml" $name)) | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ $name }}
  namespace: {{ $ns | quote }}
  labels: {{- include "gastown.labels" . | nindent 4 }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: {{ $name }}}
subjects:
  - {kind: ServiceAccount, name: {{ $name }}, namespace: {{ $ns | quote }}}
{{- range $other := $v.secretNamespaces }}
{{- if ne $other $ns }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: {{ $clusterName }}-secrets
  namespace: {{ $other | quote }}
  labels: {{- include "gastown.labels" $ | nindent 4 }}
rules: {{- include "gastown.rules" (dict "root" $root "file" (printf "files/rbac/%s-secrets.yaml" $name)) | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ $clusterName }}-secrets
  namespace: {{ $other | quote }}
  labels: {{- include "gastown.labels" $ | nindent 4 }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: {{ $clusterName }}-secrets}
subjects:
  - {kind: ServiceAccount, name: {{ $name }}, namespace: {{ $ns | quote }}}
{{- end }}
{{- end }}
---
apiVersion: v1
kind: Service
metadata:
  name: {{ $name }}
  namespace: {{ $ns | quote }}
  labels: {{- include "gastown.labels" . | nindent 4 }}
spec:
  selector: {{- include "gastown.selector" . | nindent 4 }}
  ports:
    - {name: metrics, port: 8080, targetPort: admin, appProtocol: http}
    {{- range $port, $number := .ports }}
    - {name: {{ $port }}, port: {{ $number }}, targetPort: {{ $port }}}
    {{- end }}
{{- if gt (int $v.replicas) 1 }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ $name }}
  namespace: {{ $ns | quote }}
  labels: {{- include "gastown.labels" . | nindent 4 }}
spec:
  minAvailable: 1
  selector:
    matchLabels: {{- include "gastown.selector" . | nindent 6 }}
{{- end }}
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ $name }}
  namespace: {{ $ns | quote }}
  labels: {{- include "gastown.labels" . | nindent 4 }}
spec:
  replicas: {{ $v.replicas }}
  selector:
    matchLabels: {{- include "gastown.selector" . | nindent 6 }}
  strategy:
    # The new pod is ready before the old one releases the lease.
    rollingUpdate: {maxSurge: 1, maxUnavailable: 0}
  template:
    metadata:
      labels: {{- include "gastown.labels" . | nindent 8 }}
      annotations:
        kubectl.kubernetes.io/default-container: {{ $name }}
        {{- with $v.podAnnotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec:
      serviceAccountName: {{ $name }}
      automountServiceAccountToken: true
      enableServiceLinks: false
      {{- with $root.Values.imagePullSecrets }}
      imagePullSecrets:
        {{- range . }}
        - name: {{ . | quote }}
        {{- end }}
      {{- end }}
      {{- with $v.priorityClassName }}
      priorityClassName: {{ . | quote }}
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
      terminationGracePeriodSeconds: 30
      securityContext:
        runAsNonRoot: true
        {{- if not $root.Values.openshift }}
        runAsUser: 65532
        runAsGroup: 65532
        fsGroup: 65532
        {{- end }}
        seccompProfile: {type: RuntimeDefault}
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
            - {name: GASTOWN_LOG_FORMAT, value: {{ quote $root.Values.log.format }}}
            {{- with $root.Values.log.filter }}
            - {name: GASTOWN_LOG, value: {{ quote . }}}
            {{- end }}
            {{- with $root.Values.telemetry.otlpEndpoint }}
            - {name: OTEL_EXPORTER_OTLP_ENDPOINT, value: {{ quote . }}}
            {{- end }}
            {{- range .env }}
            - {name: {{ .name }}, value: {{ quote .value }}}
            {{- end }}
            {{- with $v.extraEnv }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
          ports:
            - {name: admin, containerPort: 8080}
            {{- range $port, $number := .ports }}
            - {name: {{ $port }}, containerPort: {{ $number }}}
            {{- end }}
          livenessProbe:
            httpGet: {path: /livez, port: admin}
            periodSeconds: 10
            timeoutSeconds: 5
            failureThreshold: 6
          readinessProbe:
            httpGet: {path: /readyz, port: admin}
            periodSeconds: 2
            timeoutSeconds: 5
          resources: {{- toYaml $v.resources | nindent 12 }}
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities: {drop: [ALL]}
          {{- if or .server .client .dirs }}
          volumeMounts:
            {{- if or .server .client }}
            - {name: tls, mountPath: /var/run/gastown/tls, readOnly: true}
            {{- end }}
            {{- if .client }}
            - {name: token, mountPath: /var/run/gastown/token, readOnly: true}
            {{- end }}
            {{- range $volume, $dir := .dirs }}
            - {name: {{ $volume }}, mountPath: {{ $dir.path }}}
            {{- end }}
          {{- end }}
      {{- if or .server .client .dirs }}
      volumes:
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
        {{- range $volume, $dir := .dirs }}
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
      {{- end }}
{{ end }}
